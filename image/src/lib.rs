//! All components in one program, as the image holds them: the name that it is called by says which one runs.
//!
//! Client, TLS, runtime and formats are in the image once and not four times, and one link makes it. Nothing else is
//! shared: a process is one component from its first line on, with the rights of its own ServiceAccount, and what
//! another component could do is dead code in it. The components still know nothing of each other; only this crate
//! knows all five, and nothing depends on it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Component {
    Operator,
    Webhook,
    Node,
    Agent,
    Cli,
}

impl Component {
    /// By the name of the program: the file name in its first argument.
    fn called(program: Option<&OsStr>) -> Self {
        match program.and_then(|path| Path::new(path).file_name()).and_then(OsStr::to_str) {
            Some("sealedenv-operator") => Self::Operator,
            Some("sealedenv-webhook") => Self::Webhook,
            Some("sealedenv-node") => Self::Node,
            Some("sealedenv-agent") => Self::Agent,
            _ => Self::Cli,
        }
    }
}

/// Runs the component that the program is called after.
pub fn main() -> ExitCode {
    match Component::called(std::env::args_os().next().as_deref()) {
        Component::Operator => sealedenv_operator::main(),
        Component::Webhook => sealedenv_webhook::main(),
        Component::Node => sealedenv_node::main(),
        Component::Agent => sealedenv_agent::main(),
        Component::Cli => sealedenv_cli::main(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_which_component_runs() {
        let called = |name: &str| Component::called(Some(OsStr::new(name)));
        assert_eq!(called("/sealedenv-operator"), Component::Operator);
        assert_eq!(called("sealedenv-webhook"), Component::Webhook);
        assert_eq!(called("/sealedenv-node"), Component::Node);
        assert_eq!(called("/sealedenv-agent"), Component::Agent);
        for name in
            ["/sealedenv", "kubectl-sealedenv", "sealedenv-operator2", "/sealedenv-operator/x", "/", ""]
        {
            assert_eq!(called(name), Component::Cli, "{name}");
        }
        assert_eq!(Component::called(None), Component::Cli);
    }
}
