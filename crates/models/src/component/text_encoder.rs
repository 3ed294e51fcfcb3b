//! What text encoders have in common from outside.

use brisk_nn::{DType, Tensor};

use super::{
    Entry, Examples, NamedTensors, Port, PrepareError, Size, SizeError, SizeName, Sizes, Work,
};
use crate::{Cost, Result};

/// Tokens.
pub(crate) const IDS: Port = Port::ids("input_ids", &["B", "T"], "vocabulary");
/// Which of them are no padding.
pub(crate) const MASK: Port = Port::mask("attention_mask", &["B", "T"]);
/// What comes out.
pub(crate) const STATE: Port = Port::float("last_hidden_state", &["B", "T", "D"]);

/// Encoding.
pub(crate) const TEXT_ENCODER: Entry = Entry {
    name: "text_encoder",
    about: "Encode a text",
    inputs: &[IDS, MASK],
    outputs: &[STATE],
    sizes: &[TOKENS, PREFIX],
    settings: &[],
};

/// Tokens of a made-up text.
pub(crate) const TOKENS: SizeName = SizeName {
    name: "tokens",
    unit: "N",
    about: "Tokens of the text (default: 300)",
    usual: Some(300),
    smallest: 1,
    largest: 65_536,
    of_inputs: true,
};

/// Tokens that are computed once.
pub(crate) const PREFIX: SizeName = SizeName {
    name: "prefix",
    unit: "N",
    about: "First tokens whose keys and values are kept from run to run (default: 0)",
    usual: Some(0),
    smallest: 0,
    largest: 65_536,
    of_inputs: false,
};

/// The sizes of example inputs, each of which may be as small as one.
pub(crate) fn example_sizes(entry: &Entry) -> Vec<Size> {
    entry.sizes.iter().map(|size| size.with(0, 1)).collect()
}

/// The sizes of an encoder that has so many places.
pub(crate) fn sizes_up_to(entry: &Entry, most: usize) -> Vec<Size> {
    let sizes = entry.sizes.iter().map(|size| {
        let mut size = size.with(most, 1);
        size.default = size.default.min(most);
        size.range = 1..=most;
        size
    });
    sizes.collect()
}

/// A text of the wanted size, of a vocabulary.
///
/// # Errors
/// As [`Examples::text`].
pub(crate) fn example_text(
    sizes: &Sizes,
    vocabulary: usize,
    made: &mut Examples,
) -> Result<NamedTensors> {
    made.text(sizes.or_zero("tokens"), vocabulary)?;
    Ok(made.take())
}

/// The work of encoding texts, by the `cost` of so many tokens behind so many that are kept.
///
/// # Errors
/// Ids that are missing or of another shape.
pub(crate) fn work(
    inputs: &NamedTensors,
    sizes: &Sizes,
    cost: impl FnOnce(usize, usize) -> Vec<Cost>,
) -> Result<Work> {
    let ([batch, tokens], _) = inputs.ids(IDS.name)?;
    let prefix = sizes.or_zero(PREFIX.name).min(tokens);
    let costs = cost(tokens - prefix, prefix);
    let sizes = vec![("batch", batch), ("tokens", tokens), ("prefix", prefix)];
    Ok(Work::of_batch(batch, sizes, &costs))
}

/// Texts as they are given, row by row.
pub(crate) struct Texts {
    /// Rows, and tokens of each.
    pub shape: [usize; 2],
    /// Tokens of all rows.
    pub ids: Vec<u32>,
    /// Which are no padding.
    pub mask: Vec<Vec<bool>>,
    /// First tokens that are computed once.
    pub prefix: usize,
}

impl Texts {
    /// Takes inputs and sizes.
    ///
    /// # Errors
    /// A prefix of more than one text, of one with padding, or of all its tokens.
    pub fn read(inputs: &NamedTensors, sizes: &Sizes) -> std::result::Result<Self, PrepareError> {
        let (shape, ids) = inputs.ids(IDS.name)?;
        let [batch, tokens] = shape;
        let mask = inputs.mask(MASK.name)?.unwrap_or_default();
        let prefix = sizes.or_zero(PREFIX.name);
        let whole = batch == 1 && mask.iter().flatten().all(|keep| *keep);
        if prefix > 0 && (prefix >= tokens || !whole) {
            let problem = format!(
                "needs one text of more tokens without a mask, this is {batch} of {tokens}"
            );
            return Err(SizeError::new(PREFIX.name, prefix, problem).into());
        }
        Ok(Self {
            shape,
            ids,
            mask,
            prefix,
        })
    }

    /// What was computed of the tokens behind the prefix, `[B,T - prefix,D]`; rows of padding, which mean
    /// nothing, are zero.
    ///
    /// # Errors
    /// Another shape.
    pub fn outputs(&self, state: &Tensor) -> Result<NamedTensors> {
        let [batch, tokens] = self.shape;
        let keep = self.mask.iter().flat_map(|row| &row[self.prefix..]);
        let keep: Vec<f32> = keep.map(|keep| f32::from(u8::from(*keep))).collect();
        let keep = Tensor::from_vec(keep, (batch, tokens - self.prefix, 1))?;
        let state = state.broadcast_mul(&keep.to_dtype(DType::F32)?)?;
        Ok([(STATE.name.to_owned(), state)].into_iter().collect())
    }
}
