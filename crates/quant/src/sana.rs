//! SANA's layers in nunchaku files: which record a layer of the plain model is part of, and where its
//! rows stand there.
//!
//! ```text
//! attn.qkv_proj       attn1.to_q rows, then for every head its rows of to_k and of to_v
//! attn.out_proj       attn1.to_out.0
//! cross_attn.q_linear attn2.to_q            cross_attn.out_proj   attn2.to_out.0
//! cross_attn.kv_linear (16 bits)            attn2.to_k rows, then to_v
//! ff.inverted_conv    ff.conv_inverted, value and gate channels in turn
//! ff.depth_conv (16 bits, [channels, 3, 3, 1])  ff.conv_depth, channels in the same order
//! ff.point_conv       ff.conv_point
//! ```

use std::borrow::Cow;

use brisk_store::{MemorySource, OutTensor, TensorSource, TensorView};

use crate::error::{Error, Result};
use crate::file::{LayerKind, NunchakuFile};
use crate::integer::GROUP;
use crate::layout::TILE;
use crate::record::{Awq, Naming, Record};

/// The class that nunchaku's files name.
pub const MODEL_CLASS: &str = "NunchakuSanaTransformer2DModel";

/// Sizes of a SANA transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SanaShape {
    /// Blocks.
    pub layers: usize,
    /// Channels of a token.
    pub width: usize,
    /// Channels of a self-attention head.
    pub head_dim: usize,
    /// Channels of the cross attention.
    pub cross_width: usize,
    /// Channels between the feed-forward convolutions, after the gate.
    pub hidden: usize,
}

/// One quantised linear layer of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Query, key and value of the self-attention, in this order.
    Qkv,
    /// Its output.
    Out,
    /// Query of the cross attention.
    CrossQuery,
    /// Its output.
    CrossOut,
    /// First 1×1 convolution of the feed-forward.
    Inverted,
    /// Last one.
    Point,
}

impl Part {
    /// All of them, in the order of computation.
    pub const ALL: [Part; 6] = [
        Part::Qkv,
        Part::Out,
        Part::CrossQuery,
        Part::CrossOut,
        Part::Inverted,
        Part::Point,
    ];

    /// Prefix below the block in a nunchaku file.
    pub fn file_name(self) -> &'static str {
        match self {
            Part::Qkv => "attn.qkv_proj",
            Part::Out => "attn.out_proj",
            Part::CrossQuery => "cross_attn.q_linear",
            Part::CrossOut => "cross_attn.out_proj",
            Part::Inverted => "ff.inverted_conv",
            Part::Point => "ff.point_conv",
        }
    }

    /// Names below the block in the plain model; more than one where they share input and branch.
    pub fn plain_names(self) -> &'static [&'static str] {
        match self {
            Part::Qkv => &["attn1.to_q", "attn1.to_k", "attn1.to_v"],
            Part::Out => &["attn1.to_out.0"],
            Part::CrossQuery => &["attn2.to_q"],
            Part::CrossOut => &["attn2.to_out.0"],
            Part::Inverted => &["ff.conv_inverted"],
            Part::Point => &["ff.conv_point"],
        }
    }

    /// The block of a layer of the plain model, the part that it belongs to, and its place among the
    /// part's names; none where it belongs to no part.
    pub fn of(path: &str) -> Option<(usize, Self, usize)> {
        let (block, name) = block_and_name(path)?;
        Self::ALL.iter().find_map(|part| {
            let place = part.plain_names().iter().position(|n| *n == name)?;
            Some((block, *part, place))
        })
    }

    /// Outputs (of all names together) and inputs in the plain model.
    pub fn size(self, shape: &SanaShape) -> (usize, usize) {
        let SanaShape {
            width,
            cross_width,
            hidden,
            ..
        } = *shape;
        match self {
            Part::Qkv => (3 * width, width),
            Part::Out => (width, width),
            Part::CrossQuery => (cross_width, width),
            Part::CrossOut => (width, cross_width),
            Part::Inverted => (2 * hidden, width),
            Part::Point => (width, hidden),
        }
    }

    /// Row of the file for every row of the plain model, and the rows of the file.
    fn file_rows(self, shape: &SanaShape) -> (Vec<usize>, usize) {
        let (outputs, _) = self.size(shape);
        let rows: Vec<usize> = match self {
            Part::Qkv => {
                let (width, dim) = (shape.width, shape.head_dim);
                let padded = width.next_multiple_of(TILE);
                let head = |i: usize| padded + i / dim * 2 * dim + i % dim;
                let queries = 0..width;
                let keys = (0..width).map(head);
                let values = (0..width).map(|i| head(i) + dim);
                let rows = queries.chain(keys).chain(values).collect();
                return (rows, 3 * padded);
            }
            Part::Inverted => {
                let hidden = shape.hidden;
                let padded = hidden.next_multiple_of(GROUP);
                let rows = (0..2 * hidden).map(|i| 2 * (i % hidden) + i / hidden);
                return (rows.collect(), (2 * padded).next_multiple_of(TILE));
            }
            _ => (0..outputs).collect(),
        };
        (rows, outputs.next_multiple_of(TILE))
    }

    /// Puts a layer in the plain model's order, all names one after another, into that of the file.
    pub fn to_file(self, shape: &SanaShape, plain: &Record) -> Record {
        let (places, count) = self.file_rows(shape);
        let mut rows = vec![None; count];
        for (row, place) in places.into_iter().enumerate() {
            rows[place] = Some(row);
        }
        plain.arrange(&rows, plain.inputs.next_multiple_of(TILE))
    }

    /// The reverse of [`Part::to_file`]; inputs are cut to whole groups.
    ///
    /// # Errors
    /// A record of another size than the model needs.
    pub fn from_file(self, shape: &SanaShape, record: &Record) -> Result<Record, String> {
        let (places, count) = self.file_rows(shape);
        let (outputs, inputs) = self.size(shape);
        if record.outputs != count || record.inputs < inputs {
            return Err(format!(
                "a layer of {}x{} (outputs x inputs), but this model's layer of {outputs}x{inputs} is \
                 stored as {count}x{}; is it a file for another model?",
                record.outputs,
                record.inputs,
                inputs.next_multiple_of(TILE)
            ));
        }
        let rows: Vec<_> = places.into_iter().map(Some).collect();
        Ok(record.arrange(&rows, inputs.next_multiple_of(GROUP)))
    }
}

/// A quantised layer of the plain model.
#[derive(Clone, Debug)]
pub enum Layer {
    /// 4-bit weights with a branch.
    Svd(Record),
    /// 4-bit weights, unrounded activations.
    Awq(Awq),
}

/// Name, shape and values.
pub type PlainTensor = (String, Vec<usize>, Vec<f32>);

/// A SANA transformer's file under the plain model's names.
pub struct SanaFile {
    file: NunchakuFile,
    shape: SanaShape,
    plain: MemorySource,
}

impl SanaFile {
    /// Checks that the file is of a SANA transformer of this shape and renames its 16-bit tensors.
    ///
    /// # Errors
    /// A file for another model, or tensors of another shape.
    pub fn new(file: NunchakuFile, shape: SanaShape) -> Result<Self> {
        if let Some(class) = file.model_class().filter(|class| !class.contains("Sana")) {
            return Err(Error::File {
                file: file.label().to_owned(),
                problem: format!(
                    "it is of a {class}, expected {MODEL_CLASS}: a file for another model"
                ),
            });
        }
        let plain = plain_tensors(&file, &shape)?;
        Ok(Self { file, shape, plain })
    }

    /// The 16-bit tensors under the plain model's names.
    pub fn plain(&self) -> &MemorySource {
        &self.plain
    }

    /// Takes the 16-bit tensors out.
    pub fn into_plain(self) -> (Self, MemorySource) {
        let Self { file, shape, plain } = self;
        (
            Self {
                file,
                shape,
                plain: MemorySource::default(),
            },
            plain,
        )
    }

    /// The plain names of the layers that `prefix` of a file stands for.
    pub fn plain_layers(prefix: &str) -> Vec<String> {
        let part = block_and_name(prefix).and_then(|(block, name)| {
            let part = Part::ALL
                .into_iter()
                .find(|part| part.file_name() == name)?;
            Some((block, part))
        });
        match part {
            Some((block, part)) => {
                let name = |name: &&str| format!("transformer_blocks.{block}.{name}");
                part.plain_names().iter().map(name).collect()
            }
            // A copy of the values, kept for perturbed attention.
            None if prefix.ends_with(".attn.pag_to_v") => Vec::new(),
            None => vec![prefix.to_owned()],
        }
    }

    /// The quantised layer called `path` in the plain model, of this many inputs and outputs; `None`
    /// where it is not quantised. Inputs are rounded up to whole groups.
    ///
    /// # Errors
    /// As [`Record::read`], or a layer of another size.
    pub fn layer(&self, path: &str, inputs: usize, outputs: usize) -> Result<Option<Layer>> {
        // diffusers' own conversions keep the model's names.
        if self.file.has_layer(path) {
            return self.direct(path, inputs, outputs).map(Some);
        }
        let Some((block, part, place)) = Part::of(path) else {
            return Ok(None);
        };
        let prefix = format!("transformer_blocks.{block}.{}", part.file_name());
        if !self.file.has_layer(&prefix) {
            return Ok(None);
        }
        let expected = part.size(&self.shape);
        if expected != (outputs * part.plain_names().len(), inputs) {
            return Err(self.wrong(
                &prefix,
                format!("the model asks for {outputs}x{inputs} of it"),
            ));
        }
        let record = self.file.record(&prefix)?;
        let plain = part.from_file(&self.shape, &record);
        let plain = plain.map_err(|problem| self.wrong(&prefix, problem))?;
        let each = plain.outputs / part.plain_names().len();
        if each == plain.outputs {
            return Ok(Some(Layer::Svd(plain)));
        }
        let rows: Vec<_> = (place * each..(place + 1) * each).map(Some).collect();
        Ok(Some(Layer::Svd(plain.arrange(&rows, plain.inputs))))
    }

    /// The weight and bias that a quantised layer stands for: name, shape and values.
    ///
    /// # Errors
    /// As [`SanaFile::layer`].
    pub fn plain_layer(&self, path: &str) -> Result<Vec<PlainTensor>> {
        let part = block_and_name(path).and_then(|(_, name)| {
            Part::ALL
                .into_iter()
                .find(|part| part.plain_names().contains(&name))
        });
        let (outputs, inputs) = match part {
            Some(part) => {
                let (outputs, inputs) = part.size(&self.shape);
                (outputs / part.plain_names().len(), inputs)
            }
            // One in W4A16 has no padding.
            None if self.file.has_layer(path) => {
                let layer = self.file.awq(path)?;
                (layer.outputs, layer.inputs)
            }
            None => return Ok(Vec::new()),
        };
        let (weight, padded, bias) = match self.layer(path, inputs, outputs)? {
            Some(Layer::Svd(record)) => (record.weight(), record.inputs, record.bias),
            Some(Layer::Awq(layer)) => (layer.weight(), layer.inputs, layer.bias),
            None => return Ok(Vec::new()),
        };
        let rows = weight.chunks_exact(padded);
        let weight: Vec<f32> = rows.flat_map(|row| row[..inputs].to_vec()).collect();
        let convolution = matches!(part, Some(Part::Inverted | Part::Point));
        let shape = if convolution {
            vec![outputs, inputs, 1, 1]
        } else {
            vec![outputs, inputs]
        };
        let mut out = vec![(format!("{path}.weight"), shape, weight)];
        if let Some(bias) = bias {
            out.push((format!("{path}.bias"), vec![outputs], bias));
        }
        Ok(out)
    }

    fn direct(&self, path: &str, inputs: usize, outputs: usize) -> Result<Layer> {
        let layers = self.file.layers();
        let kind = layers.iter().find(|(prefix, _)| prefix == path);
        let other = |found: (usize, usize)| {
            let problem = format!(
                "a layer of {}x{} (outputs x inputs), but this model's has {outputs}x{inputs}; \
                 is it a file for another model?",
                found.0, found.1
            );
            self.wrong(path, problem)
        };
        if let Some((_, LayerKind::W4A16)) = kind {
            let layer = self.file.awq(path)?;
            let found = (layer.outputs, layer.inputs);
            return if found == (outputs, inputs) {
                Ok(Layer::Awq(layer))
            } else {
                Err(other(found))
            };
        }
        let record = self.file.record(path)?;
        let padded = [outputs, inputs].map(|size| size.next_multiple_of(TILE));
        if [record.outputs, record.inputs] != padded {
            return Err(other((record.outputs, record.inputs)));
        }
        let rows: Vec<_> = (0..outputs).map(Some).collect();
        let inputs = inputs.next_multiple_of(GROUP);
        Ok(Layer::Svd(record.arrange(&rows, inputs)))
    }

    fn wrong(&self, prefix: &str, problem: String) -> Error {
        let tensor = format!("{prefix}.qweight");
        Error::Tensor {
            file: self.file.source().origin(&tensor),
            tensor,
            problem,
        }
    }
}

/// `transformer_blocks.3.attn1.to_q` as 3 and `attn1.to_q`.
fn block_and_name(path: &str) -> Option<(usize, &str)> {
    let (index, name) = path.strip_prefix("transformer_blocks.")?.split_once('.')?;
    Some((index.parse().ok()?, name))
}

/// The 16-bit tensors under plain names and in the plain order.
fn plain_tensors(file: &NunchakuFile, shape: &SanaShape) -> Result<MemorySource> {
    let mut out = Vec::new();
    for name in file.plain_names() {
        let Some(view) = file.source().view(&name)? else {
            continue;
        };
        let problem = |problem: String| Error::Tensor {
            file: file.source().origin(&name),
            tensor: name.clone(),
            problem,
        };
        let renamed = rename(&name, view, shape).map_err(problem)?;
        out.extend(renamed.into_iter().map(|(name, view)| {
            let data = view.data.into_owned();
            (name, view.dtype, view.shape, data)
        }));
    }
    Ok(MemorySource::new(out)?)
}

type Named<'a> = Vec<(String, TensorView<'a>)>;

fn rename<'a>(name: &str, view: TensorView<'a>, shape: &SanaShape) -> Result<Named<'a>, String> {
    let Some((block, rest)) = block_and_name(name) else {
        return Ok(vec![(name.to_owned(), view)]);
    };
    let block = format!("transformer_blocks.{block}");
    let rows = |count: usize| match view.shape.first() {
        Some(found) if *found == count => Ok(()),
        _ => Err(format!(
            "found shape {:?}, expected {count} rows; is it a file for another model?",
            view.shape
        )),
    };
    if let Some(kind) = rest.strip_prefix("cross_attn.kv_linear.") {
        rows(2 * shape.cross_width)?;
        let row = view.data.len() / (2 * shape.cross_width);
        let half = |name: &str, first: usize| {
            let data = view.data[first * row..(first + shape.cross_width) * row].to_vec();
            let mut dims = view.shape.clone();
            dims[0] = shape.cross_width;
            let view = TensorView {
                dtype: view.dtype,
                shape: dims,
                data: Cow::Owned(data),
            };
            (format!("{block}.attn2.{name}.{kind}"), view)
        };
        return Ok(vec![half("to_k", 0), half("to_v", shape.cross_width)]);
    }
    if let Some(kind) = rest.strip_prefix("ff.depth_conv.") {
        let (places, _) = Part::Inverted.file_rows(shape);
        let stored = 2 * shape.hidden.next_multiple_of(GROUP);
        rows(stored)?;
        let row = view.data.len() / stored;
        let data = places
            .iter()
            .flat_map(|place| &view.data[place * row..(place + 1) * row]);
        let mut dims = view.shape.clone();
        dims[0] = places.len();
        if let [channels, height, width, 1] = dims[..] {
            // One input channel a kernel: its place makes no difference to the bytes.
            dims = vec![channels, 1, height, width];
        }
        let view = TensorView {
            dtype: view.dtype,
            shape: dims,
            data: Cow::Owned(data.copied().collect()),
        };
        return Ok(vec![(format!("{block}.ff.conv_depth.{kind}"), view)]);
    }
    let renamed = [("attn.", "attn1."), ("cross_attn.", "attn2.")]
        .iter()
        .find_map(|(from, to)| Some(format!("{block}.{to}{}", rest.strip_prefix(from)?)));
    Ok(vec![(renamed.unwrap_or_else(|| name.to_owned()), view)])
}

/// The reverse of what reading does to 16-bit tensors: a plain model's tensors, less its quantised
/// layers, under the file's names and in its order.
///
/// # Errors
/// Tensors that do not fit the shape.
pub fn plain_to_file(
    source: &dyn TensorSource,
    shape: &SanaShape,
    quantised: impl Fn(&str) -> bool,
) -> Result<Vec<OutTensor<'static>>> {
    let mut out = Vec::new();
    for name in source.names() {
        let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
        let Some(view) = source.view(&name)?.filter(|_| !quantised(layer)) else {
            continue;
        };
        let mut push = |name: String, shape: Vec<usize>, data: Vec<u8>| {
            out.push(OutTensor {
                name,
                dtype: view.dtype,
                shape,
                data: Cow::Owned(data),
            });
        };
        let Some((block, rest)) = block_and_name(&name) else {
            push(name.clone(), view.shape.clone(), view.data.to_vec());
            continue;
        };
        let block = format!("transformer_blocks.{block}");
        if rest.starts_with("attn2.to_v.") {
            continue; // written with the keys
        }
        if let Some(kind) = rest.strip_prefix("attn2.to_k.") {
            let other = format!("{block}.attn2.to_v.{kind}");
            let values = source
                .view(&other)?
                .filter(|v| v.shape == view.shape && v.dtype == view.dtype);
            let Some(values) = values else {
                return Err(Error::Tensor {
                    file: source.origin(&other),
                    tensor: other,
                    problem: format!(
                        "expected {} of shape {:?}, as the keys",
                        view.dtype, view.shape
                    ),
                });
            };
            let mut dims = view.shape.clone();
            dims[0] *= 2;
            let data = [&view.data[..], &values.data[..]].concat();
            push(format!("{block}.cross_attn.kv_linear.{kind}"), dims, data);
            continue;
        }
        if let Some(kind) = rest.strip_prefix("ff.conv_depth.") {
            let (places, _) = Part::Inverted.file_rows(shape);
            let channels = 2 * shape.hidden.next_multiple_of(GROUP);
            if view.shape.first() != Some(&places.len()) {
                return Err(Error::Tensor {
                    file: source.origin(&name),
                    tensor: name.clone(),
                    problem: format!(
                        "found shape {:?}, expected {} channels",
                        view.shape,
                        places.len()
                    ),
                });
            }
            let row = view.data.len() / places.len();
            let mut data = vec![0; channels * row];
            for (from, place) in places.iter().enumerate() {
                data[place * row..(place + 1) * row]
                    .copy_from_slice(&view.data[from * row..(from + 1) * row]);
            }
            let mut dims = view.shape.clone();
            dims[0] = channels;
            if let [channels, 1, height, width] = dims[..] {
                dims = vec![channels, height, width, 1];
            }
            push(format!("{block}.ff.depth_conv.{kind}"), dims, data);
            continue;
        }
        let renamed = [("attn1.", "attn."), ("attn2.", "cross_attn.")]
            .iter()
            .find_map(|(from, to)| Some(format!("{block}.{to}{}", rest.strip_prefix(from)?)));
        let renamed = renamed.unwrap_or_else(|| name.clone());
        push(renamed, view.shape.clone(), view.data.to_vec());
    }
    Ok(out)
}

/// The tensors of one quantised part of a block.
pub fn part_tensors(
    block: usize,
    part: Part,
    shape: &SanaShape,
    plain: &Record,
) -> Vec<OutTensor<'static>> {
    let prefix = format!("transformer_blocks.{block}.{}", part.file_name());
    part.to_file(shape, plain).tensors(&prefix, Naming::First)
}
