//! What a pod asks for: its annotations, read once and strictly.

use std::collections::BTreeMap;

use sealedenv_crds::names;

use super::on_change::OnChange;
use super::path::MountPath;
use super::{Delivery, Denied};
use crate::text::{is_object_name, quoted};

/// The most SealedEnvs one pod can ask for.
const MOST: usize = 32;

/// What the annotations of a pod ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// Names of SealedEnvs, each once, in the order asked for; never empty.
    pub(super) environments: Vec<String>,
    /// Names of containers; all when `None`.
    pub(super) containers: Option<Vec<String>>,
    /// `None`: whatever the SealedEnv or the cluster says.
    pub(super) delivery: Option<Delivery>,
    /// Environment variables as well as files.
    pub(super) variables: bool,
    /// Where the files go; `/run/secrets/<name>` when `None`.
    pub(super) mount_path: Option<MountPath>,
    /// What happens when files changed.
    pub(super) on_change: Option<OnChange>,
}

impl Ask {
    /// `None` when the pod asks for nothing.
    pub(super) fn read(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, Denied> {
        let Some(inject) = annotations.get(names::INJECT) else { return Ok(None) };
        let environments = list(names::INJECT, inject)?;
        if let Some(switch) = environments.iter().find(|name| matches!(name.as_str(), "true" | "false")) {
            return Err(invalid(
                names::INJECT,
                format!("is not a switch, it names SealedEnvs; found {}", quoted(switch)),
            ));
        }
        if let Some(name) = environments.iter().find(|name| !is_object_name(name)) {
            return Err(invalid(
                names::INJECT,
                format!("holds {}, which cannot be the name of a SealedEnv", quoted(name)),
            ));
        }
        if environments.len() > MOST {
            return Err(invalid(names::INJECT, format!("names more than {MOST} SealedEnvs")));
        }
        let containers =
            annotations.get(names::CONTAINERS).map(|text| list(names::CONTAINERS, text)).transpose()?;
        let delivery = annotations.get(names::DELIVERY).map(|text| delivery(text.trim())).transpose()?;
        let variables = match annotations.get(names::ENV).map(|text| text.trim()) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(invalid(
                    names::ENV,
                    format!("must be \"true\" or \"false\", not {}", quoted(other)),
                ));
            }
        };
        let mount_path = annotations
            .get(names::MOUNT_PATH)
            .map(|text| {
                MountPath::parse(text.trim())
                    .map_err(|fault| invalid(names::MOUNT_PATH, format!("{} {fault}", quoted(text.trim()))))
            })
            .transpose()?;
        let on_change = annotations
            .get(names::ON_CHANGE)
            .map(|text| OnChange::parse(text.trim()).map_err(|why| invalid(names::ON_CHANGE, why)))
            .transpose()?;
        Ok(Some(Self { environments, containers, delivery, variables, mount_path, on_change }))
    }
}

/// Annotations of ours that mean nothing on a pod: most likely misspelt, and then not obeyed.
pub(super) fn unknown(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    const KNOWN: [&str; 6] =
        [names::INJECT, names::CONTAINERS, names::DELIVERY, names::ENV, names::MOUNT_PATH, names::ON_CHANGE];
    annotations.keys().map(String::as_str).filter(|key| {
        key.strip_prefix(names::GROUP).is_some_and(|rest| rest.starts_with('/')) && !KNOWN.contains(key)
    })
}

fn delivery(text: &str) -> Result<Delivery, Denied> {
    match text {
        "secret" => Ok(Delivery::Secret),
        "csi" => Ok(Delivery::Csi),
        "agent" => Ok(Delivery::Agent),
        other => {
            Err(invalid(names::DELIVERY, format!("must be secret, csi or agent, not {}", quoted(other))))
        }
    }
}

/// A comma-separated list without empty items; what is named twice counts once.
fn list(annotation: &'static str, text: &str) -> Result<Vec<String>, Denied> {
    if text.trim().is_empty() {
        return Err(invalid(annotation, "is empty".to_owned()));
    }
    let mut items = Vec::new();
    for item in text.split(',').map(str::trim) {
        if item.is_empty() {
            return Err(invalid(annotation, "has an empty item between its commas".to_owned()));
        }
        if !items.iter().any(|known| known == item) {
            items.push(item.to_owned());
        }
    }
    Ok(items)
}

fn invalid(annotation: &'static str, why: String) -> Denied {
    Denied::InvalidAnnotation { annotation, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> Result<Option<Ask>, String> {
        let annotations =
            annotations.iter().map(|(k, v)| (format!("sealedenv.dev/{k}"), (*v).to_owned())).collect();
        Ask::read(&annotations).map_err(|denied| denied.to_string())
    }

    #[test]
    fn everything_has_a_default_but_the_names() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(
            read(&[("containers", "a"), ("env", "maybe")]),
            Ok(None),
            "without inject nothing is asked for"
        );
        let ask = read(&[("inject", " b , a,b ")]).unwrap().unwrap();
        assert_eq!(ask.environments, ["b", "a"]);
        assert_eq!((ask.containers, ask.delivery, ask.variables, ask.mount_path), (None, None, false, None));
        let ask = read(&[
            ("inject", "a"),
            ("containers", "x, y"),
            ("delivery", "secret"),
            ("env", "true"),
            ("mount-path", "/app/secrets/"),
            ("on-change", "signal=SIGHUP"),
        ])
        .unwrap()
        .unwrap();
        assert_eq!(ask.containers.unwrap(), ["x", "y"]);
        assert_eq!(ask.delivery, Some(Delivery::Secret));
        assert!(ask.variables);
        assert_eq!(ask.mount_path.unwrap().as_str(), "/app/secrets");
        assert_eq!(ask.on_change, Some(OnChange::Signal("SIGHUP")));
    }

    #[test]
    fn whatever_is_in_doubt_is_refused() {
        let many = (0..33).map(|n| format!("e{n}")).collect::<Vec<_>>().join(",");
        let long = "a".repeat(254);
        for (annotation, value) in [
            ("inject", ""),
            ("inject", " "),
            ("inject", "a,,b"),
            ("inject", "a,"),
            ("inject", "true"),
            ("inject", "false"),
            ("inject", "A"),
            ("inject", "a/b"),
            ("inject", ".."),
            ("inject", "-a"),
            ("inject", "a_b"),
            ("inject", "a\nb"),
            ("inject", &long),
            ("inject", &many),
            ("containers", ""),
            ("containers", "a,"),
            ("delivery", ""),
            ("delivery", "Secret"),
            ("delivery", "Agent"),
            ("env", ""),
            ("env", "True"),
            ("env", "1"),
            ("mount-path", ""),
            ("mount-path", "/"),
            ("mount-path", "relative"),
            ("on-change", ""),
            ("on-change", "exec=reload"),
        ] {
            let annotations = [("inject", "a"), (annotation, value)];
            let annotations = if annotation == "inject" { &annotations[1..] } else { &annotations[..] };
            assert!(read(annotations).is_err(), "{annotation}={value:?} was accepted");
        }
    }

    #[test]
    fn misspelt_annotations_are_found() {
        let annotations =
            ["sealedenv.dev/inject", "sealedenv.dev/container", "sealedenv.dev.example/x", "other"]
                .map(|key| (key.to_owned(), String::new()))
                .into();
        assert_eq!(unknown(&annotations).collect::<Vec<_>>(), ["sealedenv.dev/container"]);
    }
}
