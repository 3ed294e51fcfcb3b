//! Softmax attention, and rotary positions.

use super::{THREADS, blocks, device_of, vector, within};
use crate::driver::{Arguments, Structure};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Most channels of a head.
const LARGEST_HEAD: usize = 256;
/// Queries of a block, and keys that it sees at a time.
const QUERIES: usize = 16;
const KEYS: usize = 32;
/// Queries and keys of a block by tensor cores, and its kernels by sixteens of channels.
const TILE: usize = 64;
const TILES: [(usize, &str); 4] = [
    (2, "attention_tiles_2"),
    (4, "attention_tiles_4"),
    (5, "attention_tiles_5"),
    (8, "attention_tiles_8"),
];

/// The kernels that split the keys, by sixteens of channels.
const SPANS: [(usize, &str); 3] = [
    (2, "attention_spans_2"),
    (4, "attention_spans_4"),
    (8, "attention_spans_8"),
];

/// Queries of a block for wide heads and capped scores, and its shared memory: queries, keys and values of 256
/// channels, and scores.
const WIDE_QUERIES: usize = 16;
const WIDE_SHARED: usize = (16 + 64 + 64) * (256 + 8) * 2 + 16 * 68 * 4;

/// Heads and masks of [`attention`].
#[derive(Clone, Debug)]
pub struct Attention<'a> {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`.
    pub key_value_heads: usize,
    /// Factor of the products.
    pub scale: f32,
    /// `cap·tanh(s/cap)` of the scaled products.
    pub softcap: Option<f32>,
    /// Causal mask: keys before the first query.
    pub causal: Option<usize>,
    /// With a causal mask: keys that a query sees at most, itself included.
    pub window: Option<usize>,
    /// Valid keys of each batch row, `[batch]` of indices.
    pub lengths: Option<&'a Tensor>,
    /// Keys that are seen, `[batch, keys]` of indices: others than zero.
    pub mask: Option<&'a Tensor>,
    /// One past the last key that each query sees, `[queries]` of indices.
    pub ends: Option<&'a Tensor>,
}

/// `q` `[batch, queries, heads·dim]`, `k` and `v` `[batch, keys, key_value_heads·dim]`, to the shape of q; dim at
/// most 256. A query that sees no key gets zeros.
///
/// # Errors
/// As the module says.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, how: &Attention) -> Result<Tensor> {
    let device = device_of("attention", &[q, k, v])?;
    let (heads, groups) = (how.heads.max(1), how.key_value_heads.max(1));
    let dim = q.width() / heads;
    let (batch, queries, keys) = match (q.dims(), k.dims()) {
        (&[batch, queries, width], &[other, keys, narrow])
            if batch == other
                && k.dims() == v.dims()
                && heads.is_multiple_of(groups)
                && width == heads * dim
                && narrow == groups * dim
                && dim <= LARGEST_HEAD =>
        {
            (batch, queries, keys)
        }
        _ => {
            let expected = format!(
                "[batch, keys, {groups} heads of {dim} channels, at most {LARGEST_HEAD}] for queries {:?}",
                q.dims()
            );
            return Err(Error::shape("attention", k.dims(), &expected));
        }
    };
    within("attention", q, &[queries, keys, q.width()])?;
    let indices = |x: Option<&Tensor>, count: usize| match x {
        None => Ok(0),
        Some(x) if x.element() == Element::U32 && x.count() == count => Ok(x.address()),
        Some(x) => Err(Error::shape(
            "attention",
            x.dims(),
            &format!("{count} indices"),
        )),
    };
    let o = device.unset(q.dims(), device.element())?;
    let (causal, window) = match how.causal {
        None => (None, 0),
        before => (before, how.window.unwrap_or(0)),
    };
    let shape = || {
        let sizes = Structure::new().ints(&[queries, keys, heads, groups, dim]);
        let before = causal.map_or(-1, |before| i32::try_from(before).unwrap_or(i32::MAX));
        sizes.signed(before).int(window).float(how.scale)
    };
    let (lengths, mask) = (
        indices(how.lengths, batch)?,
        indices(how.mask, batch * keys)?,
    );
    let ends = indices(how.ends, queries)?;
    // Tensor cores take bf16 in chunks of eight.
    let halves = [q, k, v, &o].iter().all(|x| x.element() == Element::Bf16);
    let tiles = TILES.iter().find(|(steps, _)| 16 * steps >= dim);
    let tiles = tiles.filter(|_| how.softcap.is_none() && how.scale > 0.0);
    if let (true, true, Some((steps, kernel))) = (halves, dim.is_multiple_of(8), tiles) {
        let tiles = queries.div_ceil(TILE) * heads;
        let plain = batch == 1 && queries <= TILE && lengths == 0 && mask == 0 && causal.is_none();
        let spans = (2 * device.card().multiprocessors).div_ceil(tiles.max(1));
        let spans = spans.min(keys.div_ceil(2 * TILE));
        if let (true, 2.., Some((steps, kernel))) = (
            plain,
            spans,
            SPANS.iter().find(|(steps, _)| 16 * steps >= dim),
        ) {
            let span = keys.div_ceil(TILE).div_ceil(spans) * TILE;
            let spans = keys.div_ceil(span);
            let rows = queries * heads;
            let sums = device.unset(&[spans, rows, dim], Element::F32)?;
            let marks = device.unset(&[spans, rows, 2], Element::F32)?;
            let arguments = [q, k, v]
                .into_iter()
                .fold(Arguments::new(), |all, x| all.pointer(x.address()))
                .pointer(ends)
                .pointer(sums.address())
                .pointer(marks.address())
                .int(span)
                .structure(&shape());
            let grid = [queries.div_ceil(TILE), heads, spans];
            let shared = 5 * TILE * (16 * steps + 8) * 2;
            // SAFETY: as below; there are sums and marks for every span.
            unsafe { device.launch(("attention_tiles", kernel), grid, 128, shared, &arguments)? };
            let arguments = Arguments::new()
                .pointer(sums.address())
                .pointer(marks.address())
                .structure(&o.array())
                .long(rows)
                .int(dim)
                .int(spans);
            // SAFETY: as above.
            unsafe {
                device.launch(
                    ("cache", "join_spans"),
                    blocks(rows * dim),
                    THREADS,
                    0,
                    &arguments,
                )?
            };
            return Ok(o);
        }
        let arguments = [q, k, v, &o]
            .into_iter()
            .fold(Arguments::new(), |all, x| all.pointer(x.address()))
            .pointer(lengths)
            .pointer(mask)
            .pointer(ends)
            .structure(&shape());
        let grid = [queries.div_ceil(TILE), heads, batch];
        let shared = 5 * TILE * (16 * steps + 8) * 2;
        // SAFETY: as below; rows begin on 16 bytes, since channels divide by eight.
        unsafe { device.launch(("attention_tiles", kernel), grid, 128, shared, &arguments)? };
        return Ok(o);
    }
    if halves && dim.is_multiple_of(8) && ends == 0 {
        let arguments = [q, k, v, &o]
            .into_iter()
            .fold(Arguments::new(), |all, x| all.pointer(x.address()))
            .pointer(lengths)
            .pointer(mask)
            .structure(&shape().float(how.softcap.unwrap_or(0.0)));
        let grid = [queries.div_ceil(WIDE_QUERIES), heads, batch];
        let kernel = ("attention_wide", "attention_wide");
        // SAFETY: as above.
        unsafe { device.launch(kernel, grid, 128, WIDE_SHARED, &arguments)? };
        return Ok(o);
    }
    let arguments = [q, k, v, &o]
        .into_iter()
        .fold(Arguments::new(), |all, x| all.structure(&x.array()))
        .pointer(lengths)
        .pointer(mask)
        .pointer(ends)
        .structure(&shape().float(how.softcap.unwrap_or(0.0)));
    let shared = ((QUERIES + KEYS + KEYS + 1) * dim + KEYS + QUERIES * KEYS) * 4;
    let grid = [queries.div_ceil(QUERIES), heads, batch];
    // SAFETY: shapes were checked above; lengths beyond the keys count as all of them.
    unsafe { device.launch(("attention", "attention"), grid, 128, shared, &arguments)? };
    Ok(o)
}

/// Rotates the first channels of each head as pairs of their halves: `x` `[.., heads·dim]` of so many rows, `cosines`
/// and `sines` `[rows, half]` of f32; other channels pass.
///
/// # Errors
/// As the module says.
pub fn rotary(x: &Tensor, cosines: &Tensor, sines: &Tensor, heads: usize) -> Result<Tensor> {
    let device = device_of("rotary", &[x, cosines, sines])?;
    let (rows, dim) = (x.rows(), x.width() / heads.max(1));
    let half = cosines.width();
    if heads == 0 || x.width() != heads * dim || 2 * half > dim {
        let expected = format!("{heads} heads of at least {} channels", 2 * half);
        return Err(Error::shape("rotary", x.dims(), &expected));
    }
    if half == 0 {
        return Ok(x.clone());
    }
    let y = device.unset(x.dims(), x.element())?;
    let angles = rows * half;
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(vector("rotary", cosines, angles)?)
        .pointer(vector("rotary", sines, angles)?)
        .structure(&y.array())
        .long(rows)
        .int(heads)
        .int(dim)
        .int(half);
    // Eight pairs a thread where the kernel can.
    let eights = half.is_multiple_of(8) && dim.is_multiple_of(8);
    let each = if eights { 8 } else { 1 };
    // SAFETY: there are angles for every row, and `y` has the shape of x.
    unsafe {
        device.launch(
            ("attention", "rotary"),
            blocks(rows * heads * (dim - half) / each),
            THREADS,
            0,
            &arguments,
        )?
    };
    Ok(y)
}
