//! What decoding over a cache of keys and values takes.

use super::{THREADS, blocks, device_of, within};
use crate::driver::Arguments;
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Writes the rows of `x` and `y`, `[.., rows, width]`, into the rows `slots` `[rows]` of `keys` and `values`
/// `[.., capacity, width]`; a slot beyond them is passed over, so that a recorded run may have fewer rows than it was
/// recorded for. Others who hold `keys` and `values` see it.
///
/// # Errors
/// As the module says.
pub fn write_keys(
    x: &Tensor,
    y: &Tensor,
    slots: &Tensor,
    keys: &Tensor,
    values: &Tensor,
) -> Result<()> {
    let device = device_of("write_keys", &[x, y, slots, keys, values])?;
    let width = keys.width();
    let fits = x.dims() == y.dims()
        && x.width() == width
        && keys.dims() == values.dims()
        && slots.element() == Element::U32
        && slots.count() == x.rows();
    if !fits {
        let expected = format!(
            "rows of {width} channels, as many as the {} slots",
            slots.count()
        );
        return Err(Error::shape("write_keys", x.dims(), &expected));
    }
    within("write_keys", keys, &[keys.rows(), width])?;
    let arguments = Arguments::new()
        .structure(&x.array())
        .structure(&y.array())
        .pointer(slots.address())
        .structure(&keys.array())
        .structure(&values.array())
        .long(x.count())
        .int(width)
        .int(keys.rows());
    // SAFETY: sizes were checked above; the kernel passes over slots that are not there.
    unsafe {
        device.launch(
            ("cache", "write_keys"),
            blocks(x.count()),
            THREADS,
            0,
            &arguments,
        )
    }
}

/// What a token may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// It is never the one that is found.
    Found = 1,
    /// It has no share of the probability.
    Share = 2,
    /// Neither.
    Both = 3,
}

/// What is asked of a row of logits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LargestLogit {
    /// The first token of the largest logit.
    pub token: u32,
    /// Its logit.
    pub logit: f64,
    /// The largest logit of tokens that have a share.
    pub largest: f64,
    /// The sum of exponentials of their logits, less the largest.
    pub sum: f64,
}

/// Bytes of one answer.
const ANSWER: usize = 32;

/// For every row of `logits` `[rows, tokens]` its largest, and what softmax needs to know, on the host. Exponentials are
/// f64 and added in a fixed order.
///
/// # Errors
/// As the module says; a row in which no token may be found.
pub fn largest_logits(logits: &Tensor, barred: &[(u32, Barred)]) -> Result<Vec<LargestLogit>> {
    let device = logits.device();
    let (rows, tokens) = (logits.rows(), logits.width());
    within("confidence", logits, &[rows, tokens])?;
    if rows == 0 || tokens == 0 {
        return Ok(Vec::new());
    }
    let listed: Vec<u32> = barred
        .iter()
        .flat_map(|(token, what)| [*token, *what as u32])
        .collect();
    let listed = match listed.len() {
        0 => None,
        count => Some(device.upload_u32(&listed, &[count])?),
    };
    let found = device.unset(&[rows * ANSWER], Element::U8)?;
    let arguments = Arguments::new()
        .structure(&logits.array())
        .pointer(listed.as_ref().map_or(0, Tensor::address))
        .int(barred.len())
        .int(tokens)
        .pointer(found.address());
    // SAFETY: there is an answer for every row.
    unsafe {
        device.launch(
            ("cache", "confidence"),
            [rows, 1, 1],
            512,
            512 * 20,
            &arguments,
        )?
    };
    let bytes = found.to_bytes()?;
    let answers = bytes.as_chunks::<ANSWER>().0.iter();
    answers
        .map(|answer| {
            let word = |at: usize| -> [u8; 8] { std::array::from_fn(|byte| answer[8 * at + byte]) };
            let token = i64::from_le_bytes(word(3));
            match u32::try_from(token) {
                Ok(token) if (token as usize) < tokens => Ok(LargestLogit {
                    token,
                    logit: f64::from_le_bytes(word(0)),
                    largest: f64::from_le_bytes(word(1)),
                    sum: f64::from_le_bytes(word(2)),
                }),
                _ => Err(Error::Shape(
                    "confidence: a row of logits has no token that may be found".to_owned(),
                )),
            }
        })
        .collect()
}
