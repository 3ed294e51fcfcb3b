//! A model's 4-bit file under the model's names.

use std::sync::Arc;

use brisk_store::TensorSource;

use crate::error::{Error, Result};
use crate::file::{LayerKind, NunchakuFile};
use crate::groups::{LayerGroup, LowBitLayout};
use crate::integer::GROUP;
use crate::layout::TILE;
use crate::plain;
use crate::rearranged::Rearranged;
use crate::record::Record;
use crate::{Int4Weight, w4a16::Awq};

/// Name, shape and values.
pub type PlainTensor = (String, Vec<usize>, Vec<f32>);

/// A model's 4-bit file under the model's names.
pub struct LowBitModel {
    file: NunchakuFile,
    layout: Box<dyn LowBitLayout>,
    groups: Vec<LayerGroup>,
    plain: Arc<dyn TensorSource>,
}

impl LowBitModel {
    /// Checks that the file is of a model of this layout and finds its 16-bit tensors.
    ///
    /// # Errors
    /// A file for another model, or tensors of another shape.
    pub fn new(file: NunchakuFile, layout: Box<dyn LowBitLayout>) -> Result<Self> {
        if let Some(class) = file.model_class().filter(|class| !layout.accepts(class)) {
            return Err(file.error(format!(
                "it is of a {class}, expected {}: a file for another model",
                layout.class()
            )));
        }
        let places = plain::places(&file, &*layout)?;
        Ok(Self {
            groups: layout.groups(),
            plain: Arc::new(Rearranged::new(file.source().clone(), places)),
            file,
            layout,
        })
    }

    /// The 16-bit tensors under the model's names.
    pub fn plain(&self) -> &Arc<dyn TensorSource> {
        &self.plain
    }

    /// Names in the model of all quantized layers.
    pub fn layers(&self) -> Vec<String> {
        let names = self.file.layers().into_iter();
        names
            .flat_map(|(name, _)| self.plain_layers(&name))
            .collect()
    }

    /// Names in the model of what a layer of the file stands for.
    fn plain_layers(&self, name: &str) -> Vec<String> {
        match self.groups.iter().find(|group| group.file == name) {
            Some(group) => group.layers.iter().map(|(name, _)| name.clone()).collect(),
            None if self.layout.is_copy(name) => Vec::new(),
            None => vec![name.to_owned()],
        }
    }

    /// The layers called `names`, which share their input and have `outputs` results, where the file has
    /// them as one; none where it does not.
    ///
    /// # Errors
    /// A layer that cannot be read, of another size, or whose format is not computed.
    pub fn weight(
        &self,
        names: &[String],
        inputs: usize,
        outputs: &[usize],
    ) -> Result<Option<Int4Weight>> {
        // diffusers' own conversions keep the model's names.
        if let [name] = names
            && let Some(kind) = self.file.kind(name)
        {
            let layer = self.read(name, kind, outputs[0], inputs)?;
            return self.computed(name, layer, outputs, inputs).map(Some);
        }
        let same = |group: &&LayerGroup| group.layers.iter().map(|(name, _)| name).eq(names);
        let group = self.groups.iter().find(same);
        let Some(group) = group.filter(|group| self.file.kind(&group.file).is_some()) else {
            return Ok(None);
        };
        let widths = group.layers.iter().map(|(_, outputs)| outputs);
        if group.inputs != inputs || !widths.eq(outputs) {
            let problem = format!("the model asks for {outputs:?}x{inputs} of it");
            return Err(self.wrong(&group.file, problem));
        }
        let layer = Layer::W4A4(self.group(group)?);
        self.computed(&group.file, layer, outputs, inputs).map(Some)
    }

    /// Calls `take` with the weight and bias that each quantized layer stands for.
    ///
    /// # Errors
    /// A layer that cannot be read or is of another size, and those of `take`.
    pub fn unpack<E: From<Error>>(
        &self,
        mut take: impl FnMut(PlainTensor) -> Result<(), E>,
    ) -> Result<(), E> {
        for (name, kind) in self.file.layers() {
            if self.layout.is_copy(&name) {
                continue;
            }
            if let Some(group) = self.groups.iter().find(|group| group.file == name) {
                let parts = group.layers.iter().map(|(name, width)| (&**name, *width));
                plain_tensors(Layer::W4A4(self.group(group)?), group, parts, &mut take)?;
                continue;
            }
            let member = self.groups.iter().find_map(|group| {
                let layer = group.layers.iter().find(|(layer, _)| *layer == name)?;
                Some((layer.1, group.clone()))
            });
            let (outputs, group) = match (member, kind) {
                (Some(member), _) => member,
                // One in W4A16 has no padding.
                (None, LayerKind::W4A16) => {
                    let layer = self.file.awq(&name)?;
                    let layers = vec![(name.clone(), layer.outputs)];
                    (
                        layer.outputs,
                        LayerGroup::in_order(name.clone(), layers, layer.inputs),
                    )
                }
                (None, LayerKind::W4A4) => {
                    let problem = "this model has no such layer; is it a file for another model?";
                    return Err(self.wrong(&name, problem.to_owned()).into());
                }
            };
            let layer = self.read(&name, kind, outputs, group.inputs)?;
            let parts = [(&*name, outputs)].into_iter();
            plain_tensors(layer, &group, parts, &mut take)?;
        }
        Ok(())
    }

    /// A group in the model's order.
    fn group(&self, group: &LayerGroup) -> Result<Record> {
        let record = self.file.record(&group.file)?;
        let plain = group.from_file(&record);
        plain.map_err(|problem| self.wrong(&group.file, problem))
    }

    /// A layer that the file has under the model's name, of this size.
    fn read(&self, name: &str, kind: LayerKind, outputs: usize, inputs: usize) -> Result<Layer> {
        let other = |found: (usize, usize)| {
            let problem = format!(
                "a layer of {}x{} (outputs x inputs), but this model's has {outputs}x{inputs}; \
                 is it a file for another model?",
                found.0, found.1
            );
            self.wrong(name, problem)
        };
        if kind == LayerKind::W4A16 {
            let layer = self.file.awq(name)?;
            let found = (layer.outputs, layer.inputs);
            return if found == (outputs, inputs) {
                Ok(Layer::W4A16(layer))
            } else {
                Err(other(found))
            };
        }
        let record = self.file.record(name)?;
        let padded = [outputs, inputs].map(|size| size.next_multiple_of(TILE));
        if [record.outputs, record.inputs] != padded {
            return Err(other((record.outputs, record.inputs)));
        }
        let rows: Vec<_> = (0..outputs).map(Some).collect();
        let inputs = inputs.next_multiple_of(GROUP);
        Ok(Layer::W4A4(record.arrange(&rows, inputs)))
    }

    /// A layer as it is computed.
    fn computed(
        &self,
        name: &str,
        layer: Layer,
        outputs: &[usize],
        inputs: usize,
    ) -> Result<Int4Weight> {
        let weight = match layer {
            Layer::W4A16(layer) => Some(layer.into_weight()),
            Layer::W4A4(record) => record.into_weight(outputs.to_vec(), inputs),
        };
        self.file.source().forget(&format!("{name}.qweight"));
        weight.ok_or_else(|| {
            let problem = "nvfp4 layers are not computed; convert the file with `brisk convert` and load \
                           the result";
            self.wrong(name, problem.to_owned())
        })
    }

    fn wrong(&self, name: &str, problem: String) -> Error {
        let tensor = format!("{name}.qweight");
        Error::Tensor {
            file: self.file.source().origin(&tensor),
            tensor,
            problem,
        }
    }
}

/// A quantized layer in the model's order.
enum Layer {
    W4A4(Record),
    W4A16(Awq),
}

/// Weight and bias of each of `parts`, which a layer stands for together.
fn plain_tensors<'a, E>(
    layer: Layer,
    group: &LayerGroup,
    parts: impl Iterator<Item = (&'a str, usize)>,
    take: &mut impl FnMut(PlainTensor) -> Result<(), E>,
) -> Result<(), E> {
    let (weight, padded, bias) = match layer {
        Layer::W4A4(record) => (record.weight(), record.inputs, record.bias),
        Layer::W4A16(layer) => (layer.weight(), layer.inputs, layer.bias),
    };
    let mut rows = weight.chunks_exact(padded);
    let mut first = 0;
    for (name, outputs) in parts {
        let rows = rows.by_ref().take(outputs);
        let values = rows.flat_map(|row| &row[..group.inputs]).copied().collect();
        let shape = group.weight_shape(outputs);
        take((format!("{name}.weight"), shape, values))?;
        if let Some(bias) = &bias {
            let values = bias[first..first + outputs].to_vec();
            take((format!("{name}.bias"), vec![outputs], values))?;
        }
        first += outputs;
    }
    Ok(())
}
