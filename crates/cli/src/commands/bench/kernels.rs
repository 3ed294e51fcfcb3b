//! Two layers by themselves: a matrix product and a depthwise convolution.

use brisk_models::Cost;
use brisk_nn::tensor_file::{self, TensorFile};
use brisk_nn::{DepthwiseConv2d, Init, Linear, Weights, ops};
use clap::Args;
use serde_json::{Map, json};

use super::inputs::MadeUp;
use super::measure::measure;
use super::report::{Report, Stage};
use super::{FileArguments, RunArguments};
use crate::failure::{Failure, Result};
use crate::output::{self, Format};

/// Multiply a matrix with a layer's weights
#[derive(Debug, Args)]
#[command(before_help = "--inputs: x [rows, inner], weight [columns, inner] in any type.")]
pub struct GemmArguments {
    /// ROWSxINNERxCOLUMNS (default: 1024x1152x5760)
    #[arg(long, value_name = "SIZES", conflicts_with = "inputs")]
    shape: Option<String>,
    #[command(flatten)]
    files: FileArguments,
    #[command(flatten)]
    run: RunArguments,
}

/// Convolve every channel with a 3x3 kernel of its own
#[derive(Debug, Args)]
#[command(
    before_help = "--inputs: x [1, channels, height, width], weight [channels, 1, 3, 3], bias [channels]."
)]
pub struct DepthwiseArguments {
    /// CHANNELSxHEIGHTxWIDTH (default: 5760x32x32)
    #[arg(long, value_name = "SIZES", conflicts_with = "inputs")]
    shape: Option<String>,
    #[command(flatten)]
    files: FileArguments,
    #[command(flatten)]
    run: RunArguments,
}

/// Most values of one input: 4 GiB.
const LIMIT: usize = 1 << 30;

/// Three sizes, `AxBxC`.
fn shape(given: Option<&str>, usual: [usize; 3]) -> Result<[usize; 3]> {
    let Some(text) = given else { return Ok(usual) };
    let parts: Vec<usize> = text
        .split('x')
        .filter_map(|part| part.parse().ok())
        .collect();
    match parts[..] {
        [a, b, c]
            if text.matches('x').count() == 2
                && [a, b, c].iter().all(|side| (1..=LIMIT).contains(side))
                && [a * b, b * c, a * c].iter().all(|area| *area <= LIMIT) =>
        {
            Ok([a, b, c])
        }
        _ => Err(Failure::usage(format!(
            "--shape {text}: expected three sizes such as {}x{}x{}",
            usual[0], usual[1], usual[2]
        ))),
    }
}

fn begin(run: &RunArguments, files: &FileArguments) -> Result {
    run.threads.apply()?;
    match &files.outputs {
        Some(path) => {
            output::expect_format("--outputs", path, Format::Safetensors)?;
            output::check_writable(path)
        }
        None => Ok(()),
    }
}

fn open(files: &FileArguments, make: impl FnOnce(MadeUp) -> MadeUp) -> Result<TensorFile> {
    match &files.inputs {
        Some(path) => Ok(TensorFile::open(path)?),
        None => make(MadeUp::new()).finish(),
    }
}

fn report(component: &'static str, sizes: [(&str, usize); 3], stages: Vec<Stage>) -> Report {
    let sizes: Map<_, _> = sizes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    Report {
        component,
        model: None,
        random: true,
        sizes,
        stages,
    }
}

/// Times a linear layer.
pub fn gemm(arguments: &GemmArguments) -> Result {
    begin(&arguments.run, &arguments.files)?;
    let [rows, inner, columns] = shape(arguments.shape.as_deref(), [1024, 1152, 5760])?;
    let deviation = 1.0 / (inner as f32).sqrt();
    let inputs = open(&arguments.files, |made| {
        made.normal("x", &[rows, inner], 1.0, false).normal(
            "weight",
            &[columns, inner],
            deviation,
            false,
        )
    })?;
    inputs.check_names(&["x", "weight"])?;
    let x = inputs.tensor("x", 2)?;
    let (rows, inner) = x.dims2()?;
    let weights = Weights::from_source(inputs.source());
    let columns = inputs.shape("weight", 2)?[0];
    let layer = Linear::load(&weights, inner, columns, false, Init::Zeros)?;
    weights.finish(&["x"])?;
    let measured = measure(&arguments.run, |_| Ok(layer.forward(&x)?))?;
    let cost = Cost {
        name: "gemm".to_owned(),
        flops: 2 * (rows * inner * columns) as u64,
        parameters: (inner * columns) as u64,
        activations: (rows * (inner + columns)) as u64,
    };
    if let Some(path) = &arguments.files.outputs {
        tensor_file::write(path, [("y", &measured.result)])?;
    }
    let sizes = [("rows", rows), ("inner", inner), ("columns", columns)];
    let stages = measured.stages("gemm", &[cost], inputs.value_bytes("weight"));
    report("gemm", sizes, stages).print(&arguments.run)
}

/// Times a depthwise convolution.
pub fn depthwise(arguments: &DepthwiseArguments) -> Result {
    begin(&arguments.run, &arguments.files)?;
    let [channels, height, width] = shape(arguments.shape.as_deref(), [5760, 32, 32])?;
    if channels.saturating_mul(height).saturating_mul(width) > LIMIT {
        return Err(Failure::usage("--shape: more than a billion values"));
    }
    let inputs = open(&arguments.files, |made| {
        made.normal("x", &[1, channels, height, width], 1.0, false)
            .normal("weight", &[channels, 1, 3, 3], 1.0 / 3.0, false)
            .normal("bias", &[channels], 0.02, false)
    })?;
    inputs.check_names(&["x", "weight", "bias"])?;
    let x = ops::to_nhwc(&inputs.tensor("x", 4)?)?;
    let (batch, height, width, channels) = x.dims4()?;
    let weights = Weights::from_source(inputs.source());
    let layer = DepthwiseConv2d::load(&weights, channels, 3, true)?;
    weights.finish(&["x"])?;
    let measured = measure(&arguments.run, |_| Ok(layer.forward(&x)?))?;
    let values = (batch * height * width * channels) as u64;
    let cost = Cost {
        name: "depthwise".to_owned(),
        flops: 2 * 9 * values,
        parameters: 9 * channels as u64,
        activations: 2 * values,
    };
    if let Some(path) = &arguments.files.outputs {
        let y = ops::to_nchw(&measured.result)?;
        tensor_file::write(path, [("y", &y)])?;
    }
    let sizes = [("channels", channels), ("height", height), ("width", width)];
    let stages = measured.stages("depthwise", &[cost], 4.0);
    report("depthwise", sizes, stages).print(&arguments.run)
}

#[cfg(test)]
mod tests {
    use super::shape;

    #[test]
    fn shapes_are_three_sizes() {
        assert_eq!(shape(Some("2x3x4"), [1, 1, 1]).unwrap(), [2, 3, 4]);
        assert_eq!(shape(None, [1, 2, 3]).unwrap(), [1, 2, 3]);
        for wrong in [
            "2x3",
            "2x3x4x5",
            "ax3x4",
            "0x3x4",
            "99999x99999x2",
            "",
            "2x3x-4",
        ] {
            assert!(shape(Some(wrong), [1, 1, 1]).is_err(), "{wrong}");
        }
    }
}
