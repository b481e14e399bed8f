//! Writes the CRD files into the folder given as the only argument. `cargo xtask gen` calls it.

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("error: no folder given\nhint: crdgen FOLDER");
        return ExitCode::from(2);
    };
    let written = sealedenv_crds::manifests().map_err(std::io::Error::other).and_then(|files| {
        files.into_iter().try_for_each(|(file, yaml)| std::fs::write(folder.join(file), yaml))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write the CRDs into {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
