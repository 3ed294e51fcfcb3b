//! `brisk probe`: one component on given tensors.

use std::path::PathBuf;

use brisk_models::component::{Entry, LoadSettings, Port, Setting};
use brisk_models::registry;
use brisk_pipelines::folder::Wanted;
use brisk_store::{ModelFolder, check_outputs, open_weights, write_safetensors};
use brisk_train::ScmProbe;
use brisk_train::optimiser::Probed;
use clap::Args;
use clap::builder::PossibleValuesParser;

use super::compare::models::ActivationBits;
use super::component::Found;
use super::{DeviceArguments, ThreadArguments};
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::{models, output};

/// Run one component of a model on given tensors
#[derive(Debug, Args)]
#[command(before_help = ports())]
pub struct ProbeArguments {
    /// Folder, hub id, or sana-emoji; none for an optimiser
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Which component, of those above
    #[arg(long, value_name = "NAME", hide_possible_values = true, value_parser = PossibleValuesParser::new(names()))]
    component: String,
    /// Tensors to read
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// Safetensors file to write
    #[arg(long, value_name = "FILE")]
    outputs: PathBuf,
    /// Variant of the weights, such as fp16
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Convolve tap by tap: slower, closer in the last bits
    #[arg(long)]
    exact: bool,
    /// How inputs of 4-bit layers are rounded: 8 (default), 4, or full
    #[arg(long, value_enum, value_name = "BITS", hide_possible_values = true)]
    activations: Option<ActivationBits>,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Every way to run a component, each once.
fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for (_, entry) in registry::entries() {
        if !names.contains(&entry.name) {
            names.push(entry.name);
        }
    }
    names.extend(Probed::ALL.map(Probed::name));
    names.push(ScmProbe::NAME);
    names
}

/// What each takes and gives, in lines that fit a screen.
fn ports() -> String {
    const NAME: usize = 21;
    const WIDTH: usize = 98;
    let mut lines: Vec<String> = Vec::new();
    let mut text = "Names and layouts are those of the reference's forward (NCHW, f32):".to_owned();
    let shown = |ports: &[Port]| -> Vec<String> { ports.iter().map(Port::shown).collect() };
    let entries = registry::entries();
    // One line is enough for networks that differ by what may be left out.
    let is_within = |entry: &Entry| {
        entries.iter().any(|(_, other)| {
            let needed: Vec<Port> = other
                .inputs
                .iter()
                .filter(|port| !port.optional)
                .copied()
                .collect();
            other.name == entry.name
                && other.inputs.len() > entry.inputs.len()
                && shown(other.outputs) == shown(entry.outputs)
                && shown(&needed) == shown(entry.inputs)
        })
    };
    let of_models = entries.iter().filter(|(_, entry)| !is_within(entry));
    let of_models = of_models.map(|(_, entry)| {
        let inputs = shown(entry.inputs).join(", ");
        let outputs = shown(entry.outputs).join(", ");
        (entry.name, format!("{inputs} -> {outputs}"))
    });
    let of_optimisers = Probed::ALL.map(|probed| (probed.name(), probed.ports().to_owned()));
    let of_objectives = [(ScmProbe::NAME, ScmProbe::PORTS.to_owned())];
    let all = of_models.chain(of_objectives).chain(of_optimisers);
    for (name, ports) in all {
        let mut line = format!("\n  {name:NAME$}");
        let mut width = 2 + NAME;
        for word in ports.split(' ') {
            if width + word.len() > WIDTH {
                line.truncate(line.trim_end().len());
                line.push_str(&format!("\n  {:NAME$}", ""));
                width = 2 + NAME;
            }
            line.push_str(word);
            line.push(' ');
            width += word.len() + 1;
        }
        // Several networks may be run alike.
        let line = line.trim_end().to_owned();
        if !lines.contains(&line) {
            text.push_str(&line);
            lines.push(line);
        }
    }
    text
}

/// Runs the command.
pub fn run(arguments: &ProbeArguments) -> Result {
    arguments.threads.apply()?;
    output::expect_format("--outputs", &arguments.outputs, Format::Safetensors)?;
    check_outputs(
        &[arguments.outputs.as_path()],
        &[arguments.inputs.as_path()],
    )?;
    output::check_writable(&arguments.outputs)?;
    let probed = Probed::ALL
        .into_iter()
        .find(|probed| probed.name() == arguments.component);
    if let Some(probed) = probed {
        return arguments.run_optimiser(probed);
    }
    let Some(model) = &arguments.model else {
        return Err(Failure::usage(format!(
            "--model: which one's {} should run?",
            arguments.component
        )));
    };
    let folder = models::open(Some(model), arguments.variant.as_deref())?;
    if arguments.component == ScmProbe::NAME {
        return arguments.run_objective(&folder);
    }
    let found = Found::find(&folder, &arguments.component)?;
    let opened = found.open(&Wanted {
        variant: arguments.variant.clone(),
        ..Wanted::default()
    })?;
    let inputs = found.read_inputs(&*opened.config, &arguments.inputs)?;
    let low_bit = found.entry.honours(Setting::Activations) && opened.is_low_bit();
    if arguments.activations.is_some() && !low_bit {
        return Err(Failure::usage(format!(
            "--activations: has no effect on a {} without 4-bit layers",
            found.entry.name
        )));
    }
    let settings = LoadSettings {
        exact: arguments.exact,
        location: arguments.device.location(found.entry)?,
        activations: arguments.activations.map(Into::into),
        ..LoadSettings::default()
    };
    let model = opened
        .config
        .load(found.entry, &opened.weights, &settings)?;
    let outputs = model.run(&inputs)?;
    Ok(brisk_nn::tensor_file::write(
        &arguments.outputs,
        outputs.iter(),
    )?)
}

impl ProbeArguments {
    /// An optimiser, which is of no model and computes on the CPU.
    fn run_optimiser(&self, probed: Probed) -> Result {
        let given = [
            ("--model", self.model.is_some()),
            ("--variant", self.variant.is_some()),
            ("--exact", self.exact),
            ("--activations", self.activations.is_some()),
            ("--device, --precise", !self.device.is_default()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Failure::usage(format!(
                "{flag}: has no effect on an optimiser; leave it out"
            )));
        }
        let source = open_weights(&self.inputs)?;
        let outputs = probed.run(&*source)?;
        Ok(write_safetensors(
            &self.outputs,
            &outputs.tensors(),
            &Default::default(),
        )?)
    }

    /// What distillation minimises, which is no component: it takes two.
    fn run_objective(&self, folder: &ModelFolder) -> Result {
        let given = [
            ("--exact", self.exact),
            ("--activations", self.activations.is_some()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
            let name = ScmProbe::NAME;
            return Err(Failure::usage(format!(
                "{flag}: has no effect on {name}; leave it out"
            )));
        }
        self.device.only_host(ScmProbe::NAME)?;
        let source = open_weights(&self.inputs)?;
        let label = self.inputs.display().to_string();
        let outputs = ScmProbe::run(folder, self.variant.as_deref(), &*source, &label)?;
        Ok(brisk_nn::tensor_file::write(&self.outputs, outputs.iter())?)
    }
}
