//! One component of a model, whichever: a verb for every way to run one.

use brisk_models::component::{
    Entry, Examples, LoadSettings, NamedTensors, PrepareError, Prepared, RandomWeights, Runnable,
    Setting, SizeError, SizeName, Sizes,
};
use brisk_models::registry;
use brisk_nn::{Quantization, Tensor, Trace, tensor_file};
use brisk_pipelines::diffusion::noise::TorchGenerator;
use brisk_pipelines::folder::Wanted;
use brisk_pipelines::memory;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Subcommand};
use serde_json::json;

use super::measure::measure;
use super::report::{Report, Stage};
use super::{FileArguments, ModelArguments, RunArguments};
use crate::commands::DeviceArguments;
use crate::commands::component::Found;
use crate::failure::{Failure, Result};
use crate::models::quantization;
use crate::output;
use crate::output::Format;

const EXACT: &str = "exact";
const STRIP_ROWS: &str = "strip_rows";
const QUANTIZE: &str = "quantize";

/// A way to run a component, and how to measure it.
#[derive(Debug)]
pub struct ComponentArguments {
    entry: &'static str,
    model: ModelArguments,
    sizes: Sizes,
    exact: bool,
    strip_rows: Option<usize>,
    /// As it was spelt, where the way honours it.
    quantize: Option<String>,
    files: FileArguments,
    run: RunArguments,
    device: DeviceArguments,
}

/// Every way to run a component by name, with what any of the components honours.
fn entries() -> Vec<(&'static Entry, Vec<&'static SizeName>, Vec<Setting>)> {
    let mut all: Vec<(&'static Entry, Vec<&'static SizeName>, Vec<Setting>)> = Vec::new();
    for (_, entry) in registry::entries() {
        match all.iter_mut().find(|(known, ..)| known.name == entry.name) {
            None => all.push((entry, entry.sizes.iter().collect(), entry.settings.to_vec())),
            Some((_, sizes, settings)) => {
                let known: Vec<&str> = sizes.iter().map(|size| size.name).collect();
                let new = entry.sizes.iter();
                sizes.extend(new.filter(|size| !known.contains(&size.name)));
                settings.extend(entry.settings);
            }
        }
    }
    all
}

fn command(entry: &'static Entry, sizes: &[&'static SizeName], settings: &[Setting]) -> Command {
    let mut command = ModelArguments::augment_args(Command::new(entry.name));
    for size in sizes {
        let range = size.smallest as u64..=size.largest as u64;
        let mut argument = Arg::new(size.name)
            .long(size.name)
            .value_name(size.unit)
            .help(size.about)
            .value_parser(clap::value_parser!(u64).range(range));
        if size.of_inputs {
            argument = argument.conflicts_with("inputs");
        }
        command = command.arg(argument);
    }
    if settings.contains(&Setting::Exact) {
        let help = "Convolve tap by tap: slower, closer in the last bits";
        let flag = Arg::new(EXACT).long(EXACT).help(help);
        command = command.arg(flag.action(ArgAction::SetTrue));
    }
    if settings.contains(&Setting::StripRows) {
        let help = "Work in strips of so many pixel rows: the same numbers in less memory";
        let argument = Arg::new(STRIP_ROWS).long("strip-rows").value_name("ROWS");
        let parser = clap::value_parser!(u64).range(1..=1 << 20);
        command = command.arg(argument.help(help).value_parser(parser));
    }
    if settings.contains(&Setting::Quantization) {
        let help = "How linear layers keep their weights: none, 8bit or 4bit";
        let argument = Arg::new(QUANTIZE).long(QUANTIZE).value_name("KIND");
        command = command.arg(argument.help(help).default_value("none"));
    }
    // Last, as each group of arguments would describe the verb by itself.
    let command = RunArguments::augment_args(FileArguments::augment_args(command));
    DeviceArguments::augment_args(command).about(entry.about)
}

impl Subcommand for ComponentArguments {
    fn augment_subcommands(command_above: Command) -> Command {
        let all = entries().into_iter();
        all.fold(command_above, |above, (entry, sizes, settings)| {
            above.subcommand(command(entry, &sizes, &settings))
        })
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        entries().iter().any(|(entry, ..)| entry.name == name)
    }
}

impl FromArgMatches for ComponentArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, given) = matches.subcommand().ok_or_else(missing)?;
        let known = entries().into_iter().find(|(entry, ..)| entry.name == name);
        let (entry, sizes, settings) = known.ok_or_else(missing)?;
        let count = |id: &str| given.get_one::<u64>(id).map(|value| *value as usize);
        let values = sizes
            .iter()
            .filter_map(|size| Some((size.name, count(size.name)?)));
        let honours = |setting: Setting| settings.contains(&setting);
        Ok(Self {
            entry: entry.name,
            model: ModelArguments::from_arg_matches(given)?,
            sizes: values.collect(),
            exact: honours(Setting::Exact) && given.get_flag(EXACT),
            strip_rows: honours(Setting::StripRows)
                .then(|| count(STRIP_ROWS))
                .flatten(),
            quantize: honours(Setting::Quantization)
                .then(|| given.get_one::<String>(QUANTIZE).cloned())
                .flatten(),
            files: FileArguments::from_arg_matches(given)?,
            run: RunArguments::from_arg_matches(given)?,
            device: DeviceArguments::from_arg_matches(given)?,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Times a component.
pub fn run(arguments: &ComponentArguments) -> Result {
    let how = match &arguments.quantize {
        Some(kind) => quantization("--quantize", kind)?,
        None => Quantization::None,
    };
    arguments.run.threads.apply()?;
    if let Some(path) = &arguments.files.outputs {
        output::expect_format("--outputs", path, Format::Safetensors)?;
        output::check_writable(path)?;
    }
    let folder = arguments.model.folder()?;
    let found = Found::find(&folder, arguments.entry)?;
    let random = arguments.model.random();
    let opened = found.open(&Wanted {
        variant: arguments.model.variant.clone(),
        random,
        ..Wanted::default()
    })?;
    let (config, entry) = (&*opened.config, found.entry);
    let beside = found.beside(&folder)?;
    let declared = config.sizes(entry, &beside);
    let sizes = Sizes::complete(&declared, &arguments.sizes).map_err(wrong_size)?;
    let inputs = match &arguments.files.inputs {
        Some(path) => found.read_inputs(config, path)?,
        None => {
            let mut generator = TorchGenerator::new(0);
            let mut normal = |count: usize| generator.randn(count);
            config.example_inputs(entry, &sizes, &beside, &mut Examples::new(&mut normal))?
        }
    };
    if random.is_some_and(|random| random.low_bit) && !entry.honours(Setting::RandomLowBit) {
        return Err(Failure::usage(format!(
            "--storage int4: no {} is published so",
            entry.name
        )));
    }
    let work = config.work(entry, &inputs, &sizes)?;
    let stored_bytes = match random {
        Some(random) => {
            check_memory(random, config.entry_parameters(entry), how)?;
            random.bytes_per_weight()
        }
        None => opened.bytes() as f64 / config.parameters().max(1) as f64,
    };
    let settings = LoadSettings {
        exact: arguments.exact,
        strip_rows: arguments.strip_rows,
        quantization: how,
        location: arguments.device.location(entry)?,
        ..LoadSettings::default()
    };
    let location = settings.location.clone();
    let model = config.load(entry, &opened.weights, &settings)?;
    drop(opened);
    crate::allocator::release_memory();

    let prepare = || prepared(&*model, &inputs, &sizes);
    let (mut ready, preparation) = match &work.preparation {
        None => (prepare()?, None),
        Some(cost) => {
            let measured = measure(&arguments.run, |_| prepare())?;
            (measured.result, Some((cost, measured.total)))
        }
    };
    // A card is asked ahead, which waiting for every part ends: whole runs are measured by themselves.
    let whole = match location.device() {
        None => None,
        Some(_) => Some(measure(&arguments.run, |_| {
            ready.run(&mut Trace::none())?;
            Ok(location.wait()?)
        })?),
    };
    let mut measured = measure(&arguments.run, |laps| {
        let mut lap = |name: &str, x: &Tensor| {
            // What goes wrong is said when the run ends.
            drop(x.wait());
            laps.lap(model.part(name));
        };
        Ok(ready.run(&mut Trace::parts(&mut lap))?)
    })?;
    if let Some(whole) = whole {
        measured.total = whole.total;
    }
    let weight_bytes = how.bytes_per_value(work.weight_bytes.unwrap_or(stored_bytes));
    let mut stages = measured.stages(entry.name, &work.costs, weight_bytes);
    if let Some((cost, seconds)) = preparation {
        stages.push(Stage::new(&cost.name, seconds).with_cost(cost, weight_bytes));
    }
    if let Some(path) = &arguments.files.outputs {
        tensor_file::write(path, ready.outputs()?.iter())?;
    }
    let named = work.sizes.iter();
    let mut sizes: serde_json::Map<_, _> = named
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    if arguments.quantize.is_some() {
        sizes.insert("quantize".to_owned(), json!(how.name()));
    }
    Report {
        component: entry.name,
        model: Some(found.place.config_label()),
        random: random.is_some(),
        sizes,
        stages,
    }
    .print(&arguments.run)
}

fn prepared<'a>(
    model: &'a dyn Runnable,
    inputs: &NamedTensors,
    sizes: &Sizes,
) -> Result<Box<dyn Prepared + 'a>> {
    model.prepare(inputs, sizes).map_err(|error| match error {
        PrepareError::Size(size) => wrong_size(size),
        PrepareError::Failed(error) => error.into(),
    })
}

fn wrong_size(error: SizeError) -> Failure {
    Failure::usage(format!("--{error}"))
}

/// Looks whether made-up weights fit before they are made.
fn check_memory(random: RandomWeights, count: u64, how: Quantization) -> Result {
    let bytes = count as f64 * how.bytes_per_value(random.bytes_per_weight());
    Ok(memory::check(
        "weights",
        bytes as u64,
        memory::available(),
        "use --storage bf16, or a smaller model",
    )?)
}
