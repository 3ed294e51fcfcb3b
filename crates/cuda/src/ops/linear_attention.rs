//! Linear attention over ReLU features.

use super::{THREADS, device_of, vector, within};
use crate::driver::{Arguments, Structure};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor, array};

/// Most channels of a head.
const LARGEST_HEAD: usize = 32;
/// Blocks of states per multiprocessor that are worth adding up later.
const BLOCKS: usize = 4;
/// Channels of a head that tensor cores take, tokens of a block's step, blocks per multiprocessor, and the shared
/// memory of a block's states.
const TILE_HEAD: usize = 32;
const TILE_TOKENS: usize = 128;
const TILE_BLOCKS: usize = 2;
const TILE_STATES: usize = (TILE_HEAD + 1) * TILE_HEAD * 4;

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
    let halves = layouts.iter().all(|layout| match layout {
        HeadLayout::Apart(q, k, v) => [q, k, v].iter().all(|x| x.element() == Element::Bf16),
        HeadLayout::Interleaved(x) => x.element() == Element::Bf16,
    });
    let tiles = halves && dim == TILE_HEAD && y.element() == Element::Bf16;
    // Few heads leave a card idle: their tokens are summed in several runs.
    let (blocks, step) = match tiles {
        true => (TILE_BLOCKS, TILE_TOKENS),
        false => (BLOCKS, 32),
    };
    let wanted = (blocks * device.card().multiprocessors / (heads * batch).max(1)).max(1);
    let run = tokens.div_ceil(wanted).next_multiple_of(step);
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
                let [q, k, v] = [q, k, v].map(|x| (x.address(), x.element()));
                (q, k, v, heads * dim, dim)
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
                    (x.address() + bytes as u64, x.element())
                };
                (part(0), part(1), part(2), 3 * heads * dim, 3 * dim)
            }
        };
        let from = Structure::new().ints(&[tokens, heads, dim, token, head]);
        let bytes = (number * heads * dim * y.element().bytes()) as u64;
        let to = Structure::new().ints(&[tokens, heads, dim, width, dim]);
        let states = states.address();
        let file = "linear_attention";
        if tiles {
            let arguments = Arguments::new()
                .pointer(k.0)
                .pointer(v.0)
                .structure(&from)
                .int(run)
                .pointer(states);
            let kernel = (file, "linear_attention_states_tiles");
            let (grid, shared) = ([heads, runs, batch], 8 * TILE_STATES);
            // SAFETY: the strides reach all tokens and heads and no further, and states have room for every run; all
            // of them divide by the 32 channels of a head, so rows begin on 16 bytes.
            unsafe { device.launch(kernel, grid, THREADS, shared, &arguments)? };
            let arguments = Arguments::new()
                .pointer(q.0)
                .structure(&from)
                .pointer(states)
                .int(runs)
                .float(eps)
                .pointer(y.address() + bytes)
                .structure(&to)
                .int(run);
            let kernel = (file, "linear_attention_apply_tiles");
            // SAFETY: as above; the result has a row a token with room for all layouts.
            unsafe { device.launch(kernel, grid, THREADS, TILE_STATES, &arguments)? };
            continue;
        }
        let [q, k, v] = [q, k, v].map(|(address, element)| array(address, element));
        let arguments = Arguments::new()
            .structure(&k)
            .structure(&v)
            .structure(&from)
            .int(run)
            .pointer(states);
        let shared = 2 * 32 * 33 * 4;
        let kernel = (file, "linear_attention_states");
        // SAFETY: the strides reach all tokens and heads and no further, and states have room for every run.
        unsafe { device.launch(kernel, [heads, runs, batch], 128, shared, &arguments)? };
        let arguments = Arguments::new()
            .structure(&q)
            .structure(&from)
            .pointer(states)
            .int(runs)
            .float(eps)
            .structure(&array(y.address() + bytes, y.element()))
            .structure(&to);
        let (grid, shared) = ([heads, tokens.div_ceil(32), batch], (dim + 1) * dim * 4);
        let kernel = (file, "linear_attention_apply");
        // SAFETY: as above; the result has a row a token with room for all layouts.
        unsafe { device.launch(kernel, grid, 128, shared, &arguments)? };
    }
    Ok(y)
}

/// Each group of channels by a matrix of its own: `x` `[.., groups·dim]`, `mix` `[groups, dim (in), dim (out)]` of
/// f32, dim at most 32; bf16 values meet the matrices as bf16.
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
    let mix = vector("grouped", mix, groups * dim * dim)?;
    let halves = [x, &y].iter().all(|x| x.element() == Element::Bf16);
    if halves && dim == TILE_HEAD {
        // Few enough blocks that each makes good use of its matrices.
        let runs = (3 * device.card().multiprocessors / groups.max(1)).max(1);
        let run = x.rows().div_ceil(runs).next_multiple_of(TILE_TOKENS);
        let arguments = Arguments::new()
            .pointer(x.address())
            .pointer(mix)
            .pointer(y.address())
            .int(x.rows())
            .int(groups)
            .int(run);
        let grid = [groups, x.rows().div_ceil(run), 1];
        let kernel = ("linear_attention", "grouped_tiles");
        // SAFETY: the matrices were checked, and rows beyond the last are left alone.
        unsafe { device.launch(kernel, grid, THREADS, 0, &arguments)? };
        return Ok(y);
    }
    let run = 128;
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(mix)
        .structure(&y.array())
        .int(x.rows())
        .int(groups)
        .int(dim)
        .int(run);
    let grid = [groups, x.rows().div_ceil(run), 1];
    let kernel = ("linear_attention", "grouped");
    // SAFETY: as above.
    unsafe { device.launch(kernel, grid, THREADS, dim * dim * 4, &arguments)? };
    Ok(y)
}
