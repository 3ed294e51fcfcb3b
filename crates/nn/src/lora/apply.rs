//! Adapters on the weights of a model.

use super::{Layer, Lora};
use crate::error::{Error, Result};
use crate::tensor::{D, Tensor};
use brisk_kernels::int4::{Branch, Int4Weight};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The adapters of one model, each with its scale. What they add is summed before it meets the weight,
/// in an order of their own, so that none of it depends on which came first.
#[derive(Default)]
pub(crate) struct Adapters(Vec<Bound>);

struct Bound {
    lora: Arc<Lora>,
    scale: f32,
    /// Which layers of the model were adapted, by place in the file.
    used: Mutex<BTreeMap<usize, Used>>,
}

#[derive(Default)]
struct Used {
    layer: String,
    weight: bool,
    bias: bool,
}

/// What of a layer is adapted.
#[derive(Clone, Copy, PartialEq)]
enum What {
    Weight,
    Bias,
}

impl Adapters {
    /// # Errors
    /// A scale that is not finite.
    pub fn new(loras: Vec<(Arc<Lora>, f32)>) -> Result<Self> {
        let mut bound = Vec::with_capacity(loras.len());
        for (lora, scale) in loras {
            if !scale.is_finite() {
                return Err(Error::Config(format!(
                    "the scale of LoRA {} must be finite, not {scale}",
                    lora.label()
                )));
            }
            bound.push(Bound {
                lora,
                scale,
                used: Mutex::default(),
            });
        }
        bound.sort_by(|a, b| {
            let labels = a.lora.label().cmp(b.lora.label());
            labels.then(a.scale.total_cmp(&b.scale))
        });
        Ok(Self(bound))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the parameter at `path` is changed.
    pub fn change(&self, path: &str) -> bool {
        let Some((layer, what)) = split(path) else {
            return false;
        };
        self.0.iter().any(|bound| bound.find(layer, what).is_some())
    }

    /// The parameter at `path`, adapted.
    ///
    /// # Errors
    /// Adapters of another size, or that hold NaN or infinity.
    pub fn apply(&self, path: &str, weight: Tensor) -> Result<Tensor> {
        let Some((layer, what)) = split(path) else {
            return Ok(weight);
        };
        let mut sum: Option<Tensor> = None;
        for bound in &self.0 {
            let Some(place) = bound.find(layer, what) else {
                continue;
            };
            bound.mark(place, layer, what)?;
            let addend = match what {
                What::Weight => bound.addend(place, &weight)?,
                What::Bias => bound.bias(place, weight.elem_count())?,
            };
            sum = Some(match sum {
                Some(sum) => (sum + addend)?,
                None => addend,
            });
        }
        match sum {
            Some(sum) => weight + sum,
            None => Ok(weight),
        }
    }

    /// Looks at the sizes of what the parameter at `path`, of shape `shape`, is adapted by, and reads nothing.
    /// `few_bits` says that its layer's weight is held in few bits.
    ///
    /// # Errors
    /// What [`Self::apply`] and [`Self::apply_low_bit`] say, values apart.
    pub fn check(&self, path: &str, shape: &[usize], few_bits: bool) -> Result<()> {
        let (Some((layer, what)), Some((outputs, inner))) = (split(path), shape.split_first())
        else {
            return Ok(());
        };
        for bound in &self.0 {
            let Some(place) = bound.find(layer, what) else {
                continue;
            };
            bound.mark(place, layer, what)?;
            let adapter = &bound.lora.layers[place];
            if what == What::Bias {
                bound.expect(bound.bias_name(place)?, &[*outputs])?;
                continue;
            }
            bound.expect(&adapter.down, &[adapter.rank, inner.iter().product()])?;
            bound.expect(&adapter.up, &[*outputs, adapter.rank])?;
            if let Some(magnitude) = &adapter.magnitude {
                bound.expect(magnitude, &[*outputs])?;
            }
            if few_bits {
                bound.refuse_magnitude(place, layer)?;
                if adapter.bias.is_some() {
                    bound.mark(place, layer, What::Bias)?;
                    bound.expect(bound.bias_name(place)?, &[*outputs])?;
                }
            }
        }
        Ok(())
    }

    /// Whether something of the layer is changed.
    pub fn change_layer(&self, layer: &str) -> bool {
        let changes = |bound: &Bound| bound.find(layer, What::Weight).is_some();
        self.0.iter().any(changes)
    }

    /// Adapts a single layer whose weight is held in few bits, by its branch and its bias.
    ///
    /// # Errors
    /// Adapters of another size, that hold NaN or infinity, or that need the whole weight (DoRA).
    pub fn apply_low_bit(&self, layer: &str, weight: &mut Int4Weight) -> Result<()> {
        let (outputs, inputs) = (weight.outputs.iter().sum::<usize>(), weight.inputs);
        for bound in &self.0 {
            let Some(place) = bound.find(layer, What::Weight) else {
                continue;
            };
            let adapter = &bound.lora.layers[place];
            bound.refuse_magnitude(place, layer)?;
            bound.mark(place, layer, What::Weight)?;
            let (down, up) = bound.pair(place, outputs, inputs)?;
            let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
            let up = (up * bound.factor(adapter))?;
            weight.widen_branch(Branch {
                rank: adapter.rank,
                down: values(&down)?,
                up: values(&up)?,
            });
            if adapter.bias.is_some() {
                bound.mark(place, layer, What::Bias)?;
                let addend = values(&bound.bias(place, outputs)?)?;
                let bias = weight.bias.get_or_insert_with(|| vec![0.0; outputs]);
                bias.iter_mut().zip(addend).for_each(|(b, a)| *b += a);
            }
        }
        Ok(())
    }

    /// # Errors
    /// Names what of the files no parameter of the model took.
    pub fn finish(&self) -> Result<()> {
        for bound in &self.0 {
            let used = bound.used.lock().unwrap_or_else(PoisonError::into_inner);
            let weight = |place: &usize| used.get(place).is_some_and(|used| used.weight);
            let bias = |place: &usize| used.get(place).is_some_and(|used| used.bias);
            let layers = &bound.lora.layers;
            let label = &bound.lora.label;
            let unused: Vec<usize> = (0..layers.len()).filter(|p| !weight(p)).collect();
            if let Some(first) = unused.first() {
                return Err(Error::Config(format!(
                    "{label}: the LoRA adapts {} layers that this model does not have, such as {}; it is \
                     for another model",
                    unused.len(),
                    layers[*first].name
                )));
            }
            let mut places = 0..layers.len();
            if let Some(place) = places.find(|p| layers[*p].bias.is_some() && !bias(p)) {
                return Err(Error::Config(format!(
                    "{label}: the LoRA has a bias for {}, which has none in this model",
                    layers[place].name
                )));
            }
        }
        Ok(())
    }
}

/// The layer that a parameter belongs to.
fn split(path: &str) -> Option<(&str, What)> {
    let (layer, name) = path.rsplit_once('.')?;
    match name {
        "weight" => Some((layer, What::Weight)),
        "bias" => Some((layer, What::Bias)),
        _ => None,
    }
}

impl Bound {
    fn find(&self, layer: &str, what: What) -> Option<usize> {
        let place = self.lora.find(layer)?;
        let has = what == What::Weight || self.lora.layers[place].bias.is_some();
        has.then_some(place)
    }

    fn mark(&self, place: usize, layer: &str, what: What) -> Result<()> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let used = used.entry(place).or_default();
        if used.layer.is_empty() {
            used.layer = layer.to_owned();
        }
        if used.layer != layer {
            return Err(Error::Config(format!(
                "{}: layer {} fits both {} and {layer} of this model",
                self.lora.label, self.lora.layers[place].name, used.layer
            )));
        }
        match what {
            What::Weight => used.weight = true,
            What::Bias => used.bias = true,
        }
        Ok(())
    }

    fn factor(&self, adapter: &Layer) -> f64 {
        f64::from(self.scale * adapter.alpha / adapter.divisor)
    }

    /// What to add to `weight`.
    fn addend(&self, place: usize, weight: &Tensor) -> Result<Tensor> {
        let adapter = &self.lora.layers[place];
        let outputs = weight.dim(0)?;
        let inputs = weight.elem_count() / outputs.max(1);
        let (down, up) = self.pair(place, outputs, inputs)?;
        let product = (up.matmul(&down)? * self.factor(adapter))?;
        let Some(magnitude) = &adapter.magnitude else {
            return product.reshape(weight.shape());
        };
        // DoRA: rows of the adapted weight, of the lengths that the file gives.
        let rows = weight.reshape((outputs, inputs))?;
        let adapted = (&rows + product)?;
        let lengths = (adapted.sqr()?.mean(D::Minus1)? * inputs as f64)?.sqrt()?;
        let magnitude = self.values(magnitude, &[outputs])?;
        let stretched = adapted.broadcast_mul(&(magnitude / lengths)?.unsqueeze(1)?)?;
        (stretched - rows)?.reshape(weight.shape())
    }

    /// What to add to the bias `[outputs]`.
    fn bias(&self, place: usize, outputs: usize) -> Result<Tensor> {
        let factor = self.factor(&self.lora.layers[place]);
        self.values(self.bias_name(place)?, &[outputs])? * factor
    }

    /// The tensor of a layer's bias.
    fn bias_name(&self, place: usize) -> Result<&str> {
        let adapter = &self.lora.layers[place];
        match (&adapter.bias, &adapter.magnitude) {
            (Some(bias), None) => Ok(bias),
            _ => Err(Error::Config(format!(
                "{}: layer {} has both a bias and a magnitude vector, which no trainer defines",
                self.lora.label, adapter.name
            ))),
        }
    }

    /// Lengths of rows need the whole weight, which a layer of few bits does not have.
    fn refuse_magnitude(&self, place: usize, layer: &str) -> Result<()> {
        let adapter = &self.lora.layers[place];
        match adapter.magnitude {
            None => Ok(()),
            Some(_) => Err(Error::Config(format!(
                "{}: layer {} has a magnitude vector (DoRA), which the 4-bit layer {layer} cannot take; \
                 load the full weights",
                self.lora.label, adapter.name
            ))),
        }
    }

    /// `A` `[rank, inputs]` and `B` `[outputs, rank]`.
    fn pair(&self, place: usize, outputs: usize, inputs: usize) -> Result<(Tensor, Tensor)> {
        let adapter = &self.lora.layers[place];
        let down = self.values(&adapter.down, &[adapter.rank, inputs])?;
        let up = self.values(&adapter.up, &[outputs, adapter.rank])?;
        Ok((down, up))
    }

    /// Refuses a tensor of the file that has not the shape that this model needs; convolutions have trailing
    /// sides.
    fn expect(&self, name: &str, shape: &[usize]) -> Result<()> {
        let label = &self.lora.label;
        let (dtype, found) = self
            .lora
            .source
            .info(name)
            .ok_or_else(|| Error::Config(format!("{label} lacks {name}")))?;
        let count = |sides: &[usize]| sides.iter().product::<usize>();
        let fits = match (&found[..], shape) {
            ([rows, rest @ ..], [expected, inner]) => rows == expected && count(rest) == *inner,
            (found, expected) => count(found) == count(expected),
        };
        if !fits {
            return Err(Error::Config(format!(
                "{label}: {name} is {found:?}, but this model's layer needs {shape:?}; the adapter belongs to \
                 another model"
            )));
        }
        if !dtype.is_float() {
            return Err(Error::Config(format!(
                "{label}: {name} holds whole numbers ({dtype}), expected F32, BF16 or F16"
            )));
        }
        Ok(())
    }

    /// A tensor of the file in the shape that it has for this model.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.expect(name, shape)?;
        Tensor::from_vec(self.lora.values(name)?, shape)
    }
}
