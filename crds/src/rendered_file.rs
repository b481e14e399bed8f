//! Files that are made from the values of a `SealedEnv`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One file that is made from the values.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.key) ? 1 : 0) + (has(self.template) ? 1 : 0) + (has(self.format) ? 1 : 0) == 1").message("a file needs exactly one of key, template and format"))]
#[x_kube(validation = Rule::new("!has(self.keys) || has(self.format)").message("keys goes with format: a template names its keys itself"))]
pub struct RenderedFile {
    /// The key whose value is the file, byte for byte. It makes a value available under another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,

    /// A template in Jinja's syntax. In double braces the name of a key stands for its value; a name that is no word stands in quotes and brackets behind "keys". Filters: append, b64encode, dotenv, json, properties, shell, trim, urlencode, yaml. A name that is no key is an error. At most 32 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub template: Option<String>,

    /// Writes keys with their values in a common format: Dotenv (KEY=value lines), JSON or YAML (one object of texts), or Properties (as Java reads them). Values are quoted as the format asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FileFormat>,

    /// The keys that a file with a format has, in this order. All keys of data and public when absent, in the order of their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), inner(length(min = 1, max = 253)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub keys: Option<Vec<String>>,

    /// Permissions of the file in octal digits, in quotes: "0400". Only with delivery Memory. The owner must be able to read it. Absent: what the pod's volume says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4), regex(pattern = r"^0?[4-7][0-7]{2}$"))]
    pub mode: Option<String>,
}

impl RenderedFile {
    /// The permission bits of [`RenderedFile::mode`]; None where it says none, or nothing that can be meant.
    pub fn mode_bits(&self) -> Option<u32> {
        let text = self.mode.as_deref().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        let bits = u32::from_str_radix(text, 8).ok()?;
        (bits <= 0o777 && bits & 0o400 != 0).then_some(bits)
    }
}

/// A common format of configuration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Lines of KEY=value.
    Dotenv,
    /// One object.
    #[serde(rename = "JSON")]
    Json,
    /// One mapping.
    #[serde(rename = "YAML")]
    Yaml,
    /// Java properties.
    Properties,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_and_leaves_the_owner_able_to_read() {
        for (text, bits) in [
            ("0400", Some(0o400)),
            ("640", Some(0o640)),
            ("0777", Some(0o777)),
            ("0000", None),
            ("0200", None),
            ("1777", None),
            ("0800", None),
            ("+400", None),
            ("", None),
            ("rw-r--r--", None),
        ] {
            let file = RenderedFile { mode: Some(text.to_owned()), ..RenderedFile::default() };
            assert_eq!(file.mode_bits(), bits, "{text}");
        }
        assert_eq!(RenderedFile::default().mode_bits(), None);
    }
}
