//! Flags from the options' definitions: what a model can be asked for is spelt nowhere else.

use std::marker::PhantomData;

use brisk::ResultKind;
use brisk::options::{Definition, Kind, Options};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::failure::Result;

/// A kind of result, as a type.
pub trait OfKind {
    /// Which.
    const KIND: ResultKind;
}

macro_rules! kinds {
    ($($kind:ident),+) => {$(
        /// The kind of this name.
        #[derive(Debug)]
        pub struct $kind;

        impl OfKind for $kind {
            const KIND: ResultKind = ResultKind::$kind;
        }
    )+};
}
kinds!(Pictures, Text, Masks, Clips);

/// Every option that a model of this kind honours, as it was given on the command line.
#[derive(Debug)]
pub struct Flags<K> {
    given: Vec<(&'static Definition, Vec<String>)>,
    kind: PhantomData<K>,
}

impl<K: OfKind> Flags<K> {
    /// The options, with the files that they name read.
    pub fn read(&self) -> Result<Options> {
        let mut options = Options::new();
        for (definition, values) in &self.given {
            for value in values {
                options.read(definition, value)?;
            }
        }
        Ok(options)
    }
}

/// One option as a flag.
fn flag(definition: &'static Definition) -> Arg {
    let argument = Arg::new(definition.name)
        .long(definition.name)
        .visible_aliases(definition.aliases.iter().copied())
        .help(capitalised(definition.help))
        .help_heading(definition.heading.title())
        .hide(definition.rare);
    match definition.kind {
        Kind::Flag => argument.action(ArgAction::SetTrue),
        Kind::Text | Kind::TextFile | Kind::WholeTextFile => argument
            .value_name(definition.placeholder)
            .action(ArgAction::Append)
            .allow_hyphen_values(true),
        _ => argument
            .value_name(definition.placeholder)
            .action(ArgAction::Append)
            .allow_negative_numbers(true),
    }
}

/// As the other options' help begins; a list of values keeps its spelling.
fn capitalised(text: &str) -> String {
    let first = text.split(' ').next().unwrap_or_default();
    if first.ends_with(',') {
        return text.to_owned();
    }
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

impl<K: OfKind> clap::FromArgMatches for Flags<K> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let mut given = Vec::new();
        for definition in brisk::registry::options(K::KIND) {
            let values: Vec<String> = match definition.kind {
                Kind::Flag if matches.get_flag(definition.name) => vec![String::new()],
                Kind::Flag => Vec::new(),
                _ => matches
                    .get_many::<String>(definition.name)
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect(),
            };
            if !values.is_empty() {
                given.push((definition, values));
            }
        }
        Ok(Self {
            given,
            kind: PhantomData,
        })
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<K: OfKind> clap::Args for Flags<K> {
    fn augment_args(command: Command) -> Command {
        command.args(brisk::registry::options(K::KIND).into_iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// A line that names the rarely needed options of a kind.
pub fn rare(kind: ResultKind) -> String {
    let named: Vec<String> = brisk::registry::options(kind)
        .into_iter()
        .filter(|definition| definition.rare)
        .map(|definition| match definition.placeholder {
            "" => format!("--{}", definition.name),
            placeholder => format!("--{} {placeholder}", definition.name),
        })
        .collect();
    format!("Rarely needed: {}", named.join(", "))
}
