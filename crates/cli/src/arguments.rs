//! The command line: verbs here, each verb's options in its own file.

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::{
    bench, compare, convert, doctor, eval, image, inspect, models, probe, quantize, text, train,
};

/// Pictures with the SANA family and text with diffusion language models, on a plain CPU.
#[derive(Debug, Parser)]
#[command(
    name = "brisk",
    version,
    about = "Pictures with the SANA family and text with diffusion language models, on a plain CPU.",
    after_help = "First picture:  brisk image \"a red heart\" -o heart.png\n\
                  First answer:   brisk text --model GSAI-ML/LLaDA-8B-Instruct \"a question\"\n\
                  Everything a verb takes:  brisk VERB --help\n\n\
                  Results go to stdout, progress and messages to stderr.\n\
                  Exit codes: 0 done, 1 failed, 2 bad usage.\n\n\
                  Models: a folder in the published layout, a hub id (OWNER/NAME), or sana-emoji,\n\
                  the one in the box. A hub id is looked up in the local cache first, then\n\
                  downloaded; HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are honoured.",
    max_term_width = 100,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs; what each does stands with its options.
#[derive(Debug, Subcommand)]
pub enum Verb {
    Image(Box<image::ImageArguments>),
    Text(Box<text::TextArguments>),
    Models(models::ModelsArguments),
    Inspect(inspect::InspectArguments),
    Compare(compare::CompareArguments),
    Quantize(quantize::QuantizeArguments),
    Convert(convert::ConvertArguments),
    Doctor(doctor::DoctorArguments),
    #[command(subcommand)]
    Train(train::TrainVerb),
    #[command(subcommand)]
    Eval(eval::EvalVerb),
    Probe(probe::ProbeArguments),
    #[command(subcommand)]
    Bench(bench::BenchVerb),
}

/// The command line as clap sees it.
pub fn command() -> clap::Command {
    laid_out(Arguments::command().mut_subcommand("image", image::with_request_help))
}

/// What a verb does and what to know comes first, then its usage and options, for all verbs.
fn laid_out(command: clap::Command) -> clap::Command {
    command
        .help_template(
            "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}",
        )
        .mut_subcommands(laid_out)
}

/// Reads the command line; ends the program on help, version and mistakes.
pub fn parse() -> Arguments {
    let matches = command().get_matches();
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }
}
