//! The tower's entries at work.

use brisk_nn::{Tensor, Trace, ops};

use super::super::tower::Tower;
use super::tower::{CODES, FEATURES, HIDDEN, LOGITS, PIXELS, SAMPLE, TAUGHT};
use crate::component::{NamedTensors, PrepareResult, Prepared, Runnable, Sizes, not_run};
use crate::{Error, Result};

/// The part that a value of this name ends: `decoder.up.3.block.0` belongs to `up.3`.
pub(super) fn part(traced: &str) -> &str {
    let inner = traced.strip_prefix("decoder.").unwrap_or(traced);
    let end = match inner.split('.').next() {
        Some("up") => inner.match_indices('.').nth(1).map(|(at, _)| at),
        _ => inner.find('.'),
    };
    match &inner[..end.unwrap_or(inner.len())] {
        "post_quant_conv" => "conv_in",
        "norm_out" => "conv_out",
        part => part,
    }
}

/// From pictures to codes.
pub(super) struct Encode(pub Tower);

impl Runnable for Encode {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        Ok(Box::new(Encoding {
            model: &self.0,
            pictures: ops::to_nhwc(inputs.required(PIXELS.name)?)?,
            outputs: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

struct Encoding<'a> {
    model: &'a Tower,
    /// NHWC.
    pictures: Tensor,
    outputs: Option<NamedTensors>,
}

impl Prepared for Encoding<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let config = self.model.config();
        let (batch, grid) = (self.pictures.dim(0)?, config.grid);
        let encoded = self.model.encode(&self.pictures, trace)?;
        let mut outputs = NamedTensors::default();
        let shape = [batch, grid, grid, config.depth];
        outputs.insert_ids(CODES.name, &shape, encoded.codes)?;
        outputs.insert(FEATURES.name, self.model.maps(&encoded.sum)?);
        self.outputs = Some(outputs);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        self.outputs.clone().ok_or_else(not_run)
    }
}

/// From sums of codewords to pictures.
pub(super) struct Decode(pub Tower);

impl Runnable for Decode {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        Ok(Box::new(Decoding {
            model: &self.0,
            features: inputs.required(FEATURES.name)?.clone(),
            sample: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

struct Decoding<'a> {
    model: &'a Tower,
    features: Tensor,
    /// NHWC.
    sample: Option<Tensor>,
}

impl Prepared for Decoding<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        self.sample = Some(self.model.decode(&self.features, trace)?);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        let sample = ops::to_nchw(self.sample.as_ref().ok_or_else(not_run)?)?;
        Ok([(SAMPLE.name.to_owned(), sample)].into_iter().collect())
    }
}

/// All depths of places at once.
pub(super) struct Depths(pub Tower);

impl Runnable for Depths {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let hidden = inputs.required(HIDDEN.name)?;
        let (batch, places, width) = hidden.dims3()?;
        let codes = inputs.required(TAUGHT.name)?.flatten_all()?;
        let sums = self.0.quantizer().sums(&codes.to_vec1::<u32>()?)?;
        if sums
            .first()
            .is_none_or(|sum| sum.dims()[0] != batch * places)
        {
            return Err(Error::Shape("codes for another number of places".into()).into());
        }
        Ok(Box::new(Lesson {
            model: &self.0,
            shape: [batch, places],
            hidden: hidden.reshape((batch * places, width))?,
            sums,
            logits: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

struct Lesson<'a> {
    model: &'a Tower,
    shape: [usize; 2],
    hidden: Tensor,
    sums: Vec<Tensor>,
    logits: Option<Tensor>,
}

impl Prepared for Lesson<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let logits = self
            .model
            .depth()?
            .taught(&self.hidden, &self.sums, trace)?;
        let (_, depths, codes) = logits.dims3()?;
        let [batch, places] = self.shape;
        self.logits = Some(logits.reshape((batch, places, depths, codes))?);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        let logits = self.logits.clone().ok_or_else(not_run)?;
        Ok([(LOGITS.name.to_owned(), logits)].into_iter().collect())
    }
}
