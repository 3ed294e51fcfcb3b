//! Linear attention over ReLU features.

use super::{THREADS, device_of, vector, within};
use crate::driver::{Arguments, Structure};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor, array};

/// Most channels of a head.
const LARGEST_HEAD: usize = 32;
/// Blocks of states per multiprocessor that are worth adding up later.
const BLOCKS: usize = 4;

/// Where queries, keys and values of heads lie.
#[derive(Clone, Copy, Debug)]
pub enum HeadLayout<'a> {
    /// Three tensors `[batch, tokens, heads·dim]`.
    Apart(&'a Tensor, &'a Tensor, &'a Tensor),
    /// One tensor `[batch, .., heads·3·dim]`, a head's query, key and value side by side.
    Interleaved(&'a Tensor),
}

/// `o = Σ v (relu(k)·relu(q)) / (Σ relu(k)·relu(q) + eps)` for heads of at most 32 channels. Results of several
/// layouts over the same tokens lie side by side: `[batch, tokens, layouts·heads·dim]`.
///
/// # Errors
/// As the module says.
pub fn linear_attention(layouts: &[HeadLayout], heads: usize, eps: f32) -> Result<Tensor> {
    let operation = "linear_attention";
    let first = match layouts.first() {
        Some(HeadLayout::Apart(q, ..)) => *q,
        Some(HeadLayout::Interleaved(x)) => *x,
        None => return Err(Error::Shape("linear_attention: no heads".to_owned())),
    };
    let device = first.device();
    let batch = first.dims().first().copied().unwrap_or(0);
    let tokens = first.rows() / batch.max(1);
    let parts = if matches!(layouts[0], HeadLayout::Interleaved(_)) {
        3
    } else {
        1
    };
    let dim = first.width() / (parts * heads).max(1);
    let fits = heads > 0
        && dim > 0
        && dim <= LARGEST_HEAD
        && first.width() == parts * heads * dim
        && tokens > 0;
    if !fits {
        let expected = format!("{heads} heads of at most {LARGEST_HEAD} channels");
        return Err(Error::shape(operation, first.dims(), &expected));
    }
    within(
        operation,
        first,
        &[tokens, layouts.len() * parts * heads * dim],
    )?;
    let width = layouts.len() * heads * dim;
    let y = device.unset(&[batch, tokens, width], device.element())?;
    // Few heads leave a card idle: their tokens are summed in several runs.
    let wanted = (BLOCKS * device.card().multiprocessors).div_ceil(heads * batch);
    let run = tokens.div_ceil(wanted).next_multiple_of(32);
    let runs = tokens.div_ceil(run);
    let states = device.unset(&[batch, runs, heads, (dim + 1) * dim], Element::F32)?;
    for (number, layout) in layouts.iter().enumerate() {
        let (q, k, v, token, head) = match layout {
            HeadLayout::Apart(q, k, v) => {
                device_of(operation, &[first, q, k, v])?;
                let same = [k, v].iter().all(|x| x.dims() == q.dims()) && parts == 1;
                if !same || q.count() != batch * tokens * heads * dim {
                    return Err(Error::shape(
                        operation,
                        k.dims(),
                        &format!("queries, keys and values {:?}", q.dims()),
                    ));
                }
                (q.array(), k.array(), v.array(), heads * dim, dim)
            }
            HeadLayout::Interleaved(x) => {
                device_of(operation, &[first, x])?;
                if x.count() != batch * tokens * 3 * heads * dim || parts != 3 {
                    return Err(Error::shape(
                        operation,
                        x.dims(),
                        &format!("a projection {:?}", first.dims()),
                    ));
                }
                let part = |at: usize| {
                    let bytes = at * dim * x.element().bytes();
                    array(x.address() + bytes as u64, x.element())
                };
                (part(0), part(1), part(2), 3 * heads * dim, 3 * dim)
            }
        };
        let from = Structure::new().ints(&[tokens, heads, dim, token, head]);
        let arguments = Arguments::new()
            .structure(&k)
            .structure(&v)
            .structure(&from)
            .int(run)
            .pointer(states.address());
        let shared = 2 * 32 * 33 * 4;
        let kernel = ("linear_attention", "linear_attention_states");
        // SAFETY: the strides reach all tokens and heads and no further, and states have room for every run.
        unsafe { device.launch(kernel, [heads, runs, batch], 128, shared, &arguments)? };
        let bytes = number * heads * dim * y.element().bytes();
        let to = Structure::new().ints(&[tokens, heads, dim, width, dim]);
        let arguments = Arguments::new()
            .structure(&q)
            .structure(&from)
            .pointer(states.address())
            .int(runs)
            .float(eps)
            .structure(&array(y.address() + bytes as u64, y.element()))
            .structure(&to);
        let shared = (dim + 1) * dim * 4;
        let kernel = ("linear_attention", "linear_attention_apply");
        // SAFETY: as above; the result has a row a token with room for all layouts.
        unsafe {
            device.launch(
                kernel,
                [heads, tokens.div_ceil(32), batch],
                128,
                shared,
                &arguments,
            )?
        };
    }
    Ok(y)
}

/// Each group of channels by a matrix of its own: `x` `[.., groups·dim]`, `mix` `[groups, dim (in), dim (out)]` of
/// f32, dim at most 32.
///
/// # Errors
/// As the module says.
pub fn grouped(x: &Tensor, mix: &Tensor) -> Result<Tensor> {
    let device = device_of("grouped", &[x, mix])?;
    let (groups, dim) = match *mix.dims() {
        [groups, dim, other]
            if dim == other && dim <= LARGEST_HEAD && groups * dim == x.width() =>
        {
            (groups, dim)
        }
        _ => {
            let expected = format!(
                "[groups, dim, dim] of at most {LARGEST_HEAD}, for {} channels",
                x.width()
            );
            return Err(Error::shape("grouped", mix.dims(), &expected));
        }
    };
    within("grouped", x, &[x.rows(), x.width()])?;
    let y = device.unset(x.dims(), device.element())?;
    let run = 128;
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(vector("grouped", mix, groups * dim * dim)?)
        .structure(&y.array())
        .int(x.rows())
        .int(groups)
        .int(dim)
        .int(run);
    let grid = [groups, x.rows().div_ceil(run), 1];
    // SAFETY: the matrices were checked, and rows beyond the last are left alone.
    unsafe {
        device.launch(
            ("linear_attention", "grouped"),
            grid,
            THREADS,
            dim * dim * 4,
            &arguments,
        )?
    };
    Ok(y)
}
