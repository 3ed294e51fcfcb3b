//! The consistency loss on given samples with the gradient of every parameter, to be held to another implementation.

use std::sync::Arc;

use brisk_models::component::{Dimension, LoadSettings, NamedTensors, Port, read_inputs};
use brisk_models::sana::{CaptionContext, SanaConfig, SanaTransformer, compact_text};
use brisk_nn::{Tensor, Weights, ops};
use brisk_pipelines::diffusion::schedulers::scm::MAX_ANGLE;
use brisk_pipelines::folder::{ComponentFolder, Opened, Wanted};
use brisk_store::{ModelFolder, TensorSource};

use crate::error::{Error, Result};
use crate::objectives::{LogVariance, SIGMA_DATA, ScmPoint, TrigFlow, scm_loss};
use crate::tensors::{self, NamedArray};

/// A student and its teacher at given samples.
pub struct ScmProbe;

const IMAGE: [&str; 4] = ["B", "C", "H", "W"];

/// What it takes.
const INPUTS: [Port; 10] = [
    Port::float("latents", &IMAGE),
    Port::float("noise", &IMAGE),
    Port::float("t", &["B"]),
    Port::float("guidance", &["B"]),
    Port::float("encoder_hidden_states", &["B", "L", "D"]),
    Port::mask("encoder_attention_mask", &["B", "L"]),
    Port::float("null_encoder_hidden_states", &["1", "L", "D"]),
    Port::float("logvar.weight", &["1", "width"]),
    Port::float("logvar.bias", &["1"]),
    Port::scalar("warmup"),
];

/// A network of the folder.
fn open(folder: &ModelFolder, name: &str, variant: Option<&str>) -> Result<Opened<SanaConfig>> {
    let wanted = Wanted {
        variant: variant.map(str::to_owned),
        ..Wanted::default()
    };
    let place = ComponentFolder::new(folder, name);
    Ok(place.open(
        |bytes, label| SanaConfig::from_json(bytes, label).map(Box::new),
        &wanted,
    )?)
}

fn list(inputs: &NamedTensors, name: &str) -> Result<Vec<f64>> {
    let values = inputs.required(name)?.to_vec1::<f32>()?;
    Ok(values.into_iter().map(f64::from).collect())
}

impl ScmProbe {
    /// Its name as a component.
    pub const NAME: &'static str = "objective.scm";

    /// What it takes and gives, in a line of a screen.
    pub const PORTS: &'static str =
        "latents, noise, t, ... -> F, F_dot, g, loss, grad.NAME (docs/distilling.md)";

    /// Runs the student in `transformer` and the teacher in `teacher` of a folder. `latents` and `noise` are in units of
    /// σ_d: x_t = σ_d·(cos t·latents + sin t·noise).
    ///
    /// # Errors
    /// Networks that are missing or do not fit each other, and tensors that they do not take.
    pub fn run(
        folder: &ModelFolder,
        variant: Option<&str>,
        inputs: &dyn TensorSource,
        label: &str,
    ) -> Result<NamedTensors> {
        let (student, teacher) = (
            open(folder, "transformer", variant)?,
            open(folder, "teacher", variant)?,
        );
        let config = &*student.config;
        let fits = config.guidance_embeds
            && !teacher.config.guidance_embeds
            && config.in_channels == teacher.config.in_channels
            && config.caption_channels == teacher.config.caption_channels;
        if !fits {
            return Err(Error::Data(
                "transformer/config.json and teacher/config.json: expected a student that embeds the guidance strength \
                 (guidance_embeds) and a teacher that does not, of the same in_channels and caption_channels"
                    .to_owned(),
            ));
        }
        let dimension = |word: &str| {
            Some(match word {
                "C" => Dimension::Exactly(config.in_channels),
                "H" | "W" => Dimension::MultipleOf(config.patch_size),
                "D" => Dimension::Exactly(config.caption_channels),
                "width" => Dimension::Exactly(config.width()),
                _ => return None,
            })
        };
        let inputs = read_inputs(&INPUTS, &dimension, inputs, label)?;
        let angles = list(&inputs, "t")?;
        if let Some(t) = angles
            .iter()
            .find(|t| !(**t > 0.0 && **t <= f64::from(MAX_ANGLE)))
        {
            let expected = "expected angles above 0, up to π/2";
            return Err(Error::Data(format!(
                "{label}: tensor \"t\" holds {t}, {expected}"
            )));
        }
        let weights = Weights::trainable(student.stored().cloned(), 0);
        let student = SanaTransformer::load(config, &weights)?;
        let teacher = teacher
            .parameters(&LoadSettings::default())?
            .build()
            .and_then(|weights| SanaTransformer::load(&teacher.config, &weights))?;
        compute(&student, &weights, &teacher, &inputs, &angles)
    }
}

fn compute(
    student: &SanaTransformer,
    weights: &Weights,
    teacher: &SanaTransformer,
    inputs: &NamedTensors,
    angles: &[f64],
) -> Result<NamedTensors> {
    let batch = angles.len();
    let guidance = list(inputs, "guidance")?;
    let warm_up = f64::from(inputs.scalar("warmup")?.unwrap_or(1.0));
    let mask = inputs.mask("encoder_attention_mask")?.unwrap_or_default();
    let text = inputs.required("encoder_hidden_states")?;
    let empty = inputs.required("null_encoder_hidden_states")?;
    let empty = empty.broadcast_as(text.shape().clone())?.contiguous()?;
    let encode = |model: &SanaTransformer, text: &Tensor| -> Result<CaptionContext> {
        let (text, lengths) = compact_text(text, &mask)?;
        Ok(model.encode_caption(&text, &lengths)?)
    };
    let latents = ops::to_nhwc(inputs.required("latents")?)?;
    let noise = ops::to_nhwc(inputs.required("noise")?)?;
    let point = ScmPoint::new(&latents, &noise, angles, &guidance)?;
    let caption = encode(student, text)?;
    let velocity = point.velocity(
        TrigFlow(teacher),
        &encode(teacher, text)?,
        &encode(teacher, &empty)?,
    )?;
    let rate = point.student_rate(TrigFlow(student), &caption, &velocity)?;
    let extra = Weights::trainable(Some(given(inputs)?), 0);
    let variance = LogVariance::load(&extra.pp("logvar"), student.config().width())?;
    let (predicted, log_variance) =
        variance.predict(TrigFlow(student), &point.x, angles, &guidance, &caption)?;
    let raw = point.tangent(&predicted.detach(), &velocity, &rate, warm_up)?;
    let mut normalised = raw.clone();
    point.normalise(&mut normalised);
    let loss = scm_loss(&predicted, &log_variance, &normalised, angles)?;
    let gradients = loss.surrogate.backward()?;
    let mut outputs = NamedTensors::default();
    let shape = predicted.shape().clone();
    let of = |values: Vec<f32>| Tensor::from_vec(values, shape.clone());
    for (name, tensor) in [
        ("x_t", (&point.x * SIGMA_DATA)?),
        ("velocity", (velocity * SIGMA_DATA)?),
        ("F", predicted.detach()),
        ("F_dot", rate),
        ("g_raw", of(raw)?),
        ("g", of(normalised)?),
    ] {
        outputs.insert(name, ops::to_nchw(&tensor)?);
    }
    outputs.insert("logvar", log_variance.detach().reshape((batch, 1))?);
    outputs.insert("loss", Tensor::from_vec(vec![loss.value as f32], 1)?);
    let variables = weights.variables().into_iter().chain(extra.variables());
    for (name, variable) in variables {
        let gradient = match gradients.get(variable.as_tensor()) {
            Some(gradient) => gradient.clone(),
            None => variable.as_tensor().zeros_like()?,
        };
        outputs.insert(format!("grad.{name}"), gradient.contiguous()?.into());
    }
    Ok(outputs)
}

/// The layer's parameters as a source.
fn given(inputs: &NamedTensors) -> Result<Arc<dyn TensorSource>> {
    let arrays = ["logvar.weight", "logvar.bias"].map(|name| {
        let tensor = inputs.required(name)?;
        Ok(NamedArray {
            name: name.to_owned(),
            shape: tensor.dims().to_vec(),
            values: tensors::values(tensor)?,
        })
    });
    let arrays = arrays.into_iter().collect::<Result<Vec<_>>>()?;
    tensors::memory_source(&arrays, "", false)
}
