//! What can be wrong with a file. Names of files, keys and lines, and nothing else.

use std::fmt;

use sealedenv_crds::names;

/// Why a file cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// None or several of `key`, `template` and `format`.
    #[error("needs exactly one of key, template and format")]
    NotOne,
    /// `keys` without `format`.
    #[error("keys goes with format: a template names its keys itself")]
    KeysWithoutFormat,
    /// `keys` names one twice.
    #[error("{0} stands twice in keys")]
    KeyTwice(Name),
    /// The path cannot be one.
    #[error(
        "the path cannot be used: parts of letters, digits, '-', '_' and '.', at most {depth}, which are neither '.' nor begin with '..', and at most {length} characters",
        depth = crate::MAX_DEPTH,
        length = crate::MAX_PATH
    )]
    Path,
    /// The path has a folder, and a Secret has none.
    #[error("with delivery Secret the path is a key of the Secret and has no '/'")]
    FolderInSecret,
    /// A key has the path's name, or that of its first folder.
    #[error("the path has the name of a key: give the file another path")]
    TakenByKey,
    /// Another file is below it.
    #[error("the path is a folder of another file")]
    Folder,
    /// `mode` where nothing has a mode.
    #[error("mode is for delivery Memory: a Secret has no modes of its own, the volume that mounts it has")]
    ModeInSecret,
    /// `mode` is no mode.
    #[error("mode is octal digits that let the owner read, for example \"0400\"")]
    Mode,
    /// More files than there may be.
    #[error("at most {max} files", max = crate::MAX_FILES)]
    TooMany,
    /// A key that is neither in `data` nor in `public`.
    #[error("there is no key {0} in data or public")]
    NoKey(Name),
    /// A template names a key that is neither in `data` nor in `public`, or something else that is not there.
    #[error("{0}there is no key of that name in data or public")]
    UnknownName(At),
    /// A key that it needs did not open.
    #[error("needs {0}, which does not open")]
    KeyNotOpened(Name),
    /// A value that is not UTF-8 where text belongs.
    #[error("{0} is not text: only key, and b64encode in a template, take such a value")]
    NotText(Name),
    /// The same, in a template.
    #[error("{0}a value that is not text: only b64encode takes it")]
    NotTextHere(At),
    /// A key that no line of a dotenv file can set.
    #[error("{0} cannot be a variable: choose keys of letters, digits and '_' with keys")]
    NotAVariable(Name),
    /// A value with NUL in a dotenv file.
    #[error("{0} has a NUL, which a dotenv file cannot hold")]
    Nul(Name),
    /// The template does not parse.
    #[error("{0}the template has a syntax error")]
    Syntax(At),
    /// The template uses what is not available.
    #[error("{0}{1}")]
    Unsupported(At, &'static str),
    /// The template is longer than it may be.
    #[error("the template has more than {max} bytes", max = crate::MAX_TEMPLATE)]
    LongTemplate,
    /// The file would be larger than it may be.
    #[error("the file would have more than {max} bytes", max = crate::MAX_FILE)]
    TooLarge,
    /// The files before it fill a Secret already.
    #[error("not made: the values and the files before it fill a Secret already")]
    NoRoom,
    /// The template asks for more work than it gets.
    #[error("the template asks for too much work")]
    TooMuchWork,
    /// Something else went wrong while the template ran.
    #[error("{0}the template cannot be carried out")]
    Failed(At),
}

impl Fault {
    /// The stable word for status, metrics and scripts.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotOne
            | Self::KeysWithoutFormat
            | Self::KeyTwice(_)
            | Self::Path
            | Self::FolderInSecret
            | Self::TakenByKey
            | Self::Folder
            | Self::ModeInSecret
            | Self::Mode
            | Self::TooMany => "InvalidFile",
            Self::NoKey(_) | Self::UnknownName(_) => "UnknownKey",
            Self::KeyNotOpened(_) => "KeyNotOpened",
            Self::NotText(_) | Self::NotTextHere(_) => "NotText",
            Self::NotAVariable(_) | Self::Nul(_) => "NotRepresentable",
            Self::Syntax(_) => "TemplateSyntax",
            Self::Unsupported(..) | Self::LongTemplate => "TemplateUnsupported",
            Self::TooLarge | Self::NoRoom => "FileTooLarge",
            Self::TooMuchWork => "TooMuchWork",
            Self::Failed(_) => "TemplateFailed",
        }
    }

    /// The line of the template that it is about, from 1.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::UnknownName(at)
            | Self::NotTextHere(at)
            | Self::Syntax(at)
            | Self::Unsupported(at, _)
            | Self::Failed(at) => at.0,
            _ => None,
        }
    }
}

/// A line of a template, where it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(pub Option<usize>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, "line {line}: "))
    }
}

/// The name of a key, shown only if it can be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(if names::is_valid_key(name) { name } else { "(a name that no key can have)" }.to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
