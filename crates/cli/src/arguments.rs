//! The command line: verbs here, each verb's options in its own file.

use brisk::{BoxModel, registry};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::{
    batch, bench, compare, completions, convert, distill, doctor, eval, grow, image, inspect,
    masks, models, probe, prune, quantize, reproduce, serve, text, train, video, work,
};

/// The version, with the commit that it was built from where that is known.
const VERSION: &str = env!("BRISK_VERSION");

/// What the command is for: what each family gives, in words.
fn about() -> String {
    let families = |kind| {
        let of_kind = registry::FAMILIES
            .iter()
            .filter(|family| family.results().contains(&kind))
            .map(|family| family.about);
        of_kind.collect::<Vec<_>>().join(", ")
    };
    let parts =
        brisk::ResultKind::ALL.map(|kind| format!("{} with {}", kind.name(), families(kind)));
    format!("Makes {}; on a plain CPU.", parts.join(", "))
}

/// First commands, and the models in the box.
fn first_steps() -> String {
    let boxed: Vec<&str> = BoxModel::all().iter().map(|model| model.name).collect();
    format!(
        "First picture:  brisk image \"a red heart\" -o heart.png\n\
         First answer:   brisk text \"a question\"\n\
         Everything a verb takes:  brisk VERB --help\n\n\
         Results go to stdout, progress and messages to stderr.\n\
         Exit codes: 0 done, 1 failed, 2 bad usage, 130 stopped.\n\n\
         Models: a folder in the published layout, a hub id (OWNER/NAME), or one in the box:\n\
         {}. A hub id is looked up in the local cache first, then\n\
         downloaded; HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are honoured.",
        boxed.join(", ")
    )
}

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "brisk",
    version = VERSION,
    about = about(),
    after_help = first_steps(),
    max_term_width = 100,
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
    Video(Box<video::VideoArguments>),
    Masks(Box<masks::MasksArguments>),
    Models(models::ModelsArguments),
    Inspect(inspect::InspectArguments),
    Compare(compare::CompareArguments),
    Quantize(quantize::QuantizeArguments),
    Grow(grow::GrowArguments),
    Prune(prune::PruneArguments),
    Convert(convert::ConvertArguments),
    Doctor(doctor::DoctorArguments),
    #[command(subcommand)]
    Train(train::TrainVerb),
    #[command(subcommand)]
    Distill(distill::DistillVerb),
    #[command(subcommand)]
    Eval(eval::EvalVerb),
    Reproduce(reproduce::ReproduceArguments),
    Serve(Box<serve::ServeArguments>),
    #[command(subcommand)]
    Batch(batch::BatchVerb),
    Work(Box<work::WorkArguments>),
    Probe(probe::ProbeArguments),
    #[command(subcommand)]
    Bench(bench::BenchVerb),
    Completions(completions::CompletionsArguments),
    Man(completions::ManArguments),
}

/// The command line as clap sees it.
pub fn command() -> clap::Command {
    laid_out(Arguments::command())
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
