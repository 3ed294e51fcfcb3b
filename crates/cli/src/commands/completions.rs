//! `brisk completions` and `brisk man`: what shells and man read, from the definitions of the flags.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use crate::failure::{Failure, Result};
use crate::output;

/// Print a completion script for a shell
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// Which shell
    shell: Shell,
}

/// Write man pages, one a verb
#[derive(Debug, Args)]
pub struct ManArguments {
    /// Folder for the pages; it is made if need be
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Prints the script.
pub fn completions(arguments: &CompletionsArguments) -> Result {
    let mut script = Vec::new();
    let mut command = crate::arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "brisk", &mut script);
    output::print_bytes(&script)
}

/// Writes the pages.
pub fn man(arguments: &ManArguments) -> Result {
    let failed = |error: std::io::Error| {
        Failure::failed(format!(
            "cannot write to {}: {error}",
            arguments.folder.display()
        ))
    };
    std::fs::create_dir_all(&arguments.folder).map_err(failed)?;
    clap_mangen::generate_to(crate::arguments::command(), &arguments.folder).map_err(failed)?;
    output::print(&arguments.folder.display().to_string())
}
