//! Attentions.

use super::{Listed, Ready, Setting, Values};
use crate::error::Result;
use crate::ops::{self, Attention, HeadLayout};

pub(super) const CASES: &[Listed] = &[
    ("linear attention", &["linear_attention"], |s| {
        linear(s, s.pick([2, 77, 3, 24], [1, 1024, 36, 28]))
    }),
    (
        "linear attention, heads of 32",
        &["linear_attention"],
        |s| linear(s, s.pick([1, 301, 3, 32], [1, 1024, 36, 32])),
    ),
    (
        "linear attention, scales interleaved",
        &["linear_attention"],
        interleaved,
    ),
    ("a matrix a group", &["linear_attention"], |s| {
        grouped(s, s.pick([150, 3, 20], [16384, 48, 20]))
    }),
    ("a matrix a group of 32", &["linear_attention"], |s| {
        grouped(s, s.pick([300, 5, 32], [16384, 48, 32]))
    }),
    (
        "attention, lengths of keys",
        &["attention", "attention_tiles"],
        |s| {
            softmax(
                s,
                &Masks::LENGTHS,
                s.pick([2, 21, 37, 3, 3, 24], [1, 1024, 300, 16, 16, 72]),
            )
        },
    ),
    (
        "attention, causal, window, cap, shared keys",
        &["attention", "attention_wide"],
        |s| {
            softmax(
                s,
                &Masks::CAUSAL,
                s.pick([2, 40, 150, 4, 2, 40], [1, 300, 300, 8, 4, 256]),
            )
        },
    ),
    (
        "attention, wide heads, lengths of keys",
        &["attention", "attention_wide"],
        |s| {
            softmax(
                s,
                &Masks::LENGTHS,
                s.pick([2, 18, 139, 2, 1, 232], [4, 300, 300, 8, 4, 256]),
            )
        },
    ),
    ("attention, wide heads, odd channels", &["attention"], |s| {
        softmax(
            s,
            &Masks::HOLES,
            s.pick([1, 19, 40, 2, 2, 26], [1, 64, 77, 4, 4, 250]),
        )
    }),
    (
        "attention, masked keys",
        &["attention", "attention_tiles"],
        |s| {
            softmax(
                s,
                &Masks::HOLES,
                s.pick([2, 18, 33, 2, 1, 40], [2, 128, 77, 12, 12, 64]),
            )
        },
    ),
    (
        "attention, causal, window, shared keys",
        &["attention", "attention_tiles"],
        |s| {
            let masks = Masks {
                softcap: false,
                ..Masks::CAUSAL
            };
            softmax(
                s,
                &masks,
                s.pick([1, 70, 90, 4, 2, 16], [1, 1024, 1280, 32, 8, 128]),
            )
        },
    ),
    (
        "attention over a cache, few queries",
        &["attention_tiles", "attention", "cache"],
        |s| {
            softmax(
                s,
                &Masks::ENDS,
                s.pick([1, 9, 300, 2, 2, 24], [1, 32, 1280, 32, 32, 128]),
            )
        },
    ),
    (
        "attention over a cache, shared keys",
        &["attention_tiles", "attention", "cache"],
        |s| {
            softmax(
                s,
                &Masks::ENDS,
                s.pick([1, 33, 260, 4, 2, 64], [1, 32, 1280, 28, 4, 128]),
            )
        },
    ),
    (
        "attention over a cache, all queries",
        &["attention_tiles", "attention"],
        |s| {
            softmax(
                s,
                &Masks::ENDS,
                s.pick([1, 70, 75, 4, 2, 20], [1, 1280, 1280, 32, 32, 128]),
            )
        },
    ),
    ("rotary positions", &["attention"], |s| {
        rotary(s, s.pick([7, 3, 32], [300, 8, 256]), 2)
    }),
    ("rotary positions, odd halves", &["attention"], |s| {
        rotary(s, s.pick([7, 3, 10], [300, 8, 250]), 2)
    }),
    ("rotary positions, half the channels", &["attention"], |s| {
        rotary(s, s.pick([5, 2, 32], [1280, 32, 128]), 4)
    }),
    ("rotary positions, some channels", &["attention"], |s| {
        rotary(s, s.pick([5, 2, 11], [1280, 32, 128]), 4)
    }),
    ("keys to slots of a cache", &["cache"], write_keys),
    ("largest logits and their sums", &["cache"], largest_logits),
];

/// Linear attention at a token and channel, where `part(token, which, channel)` is a query, key or value.
fn plain_linear(
    tokens: usize,
    dim: usize,
    token: usize,
    channel: usize,
    part: impl Fn(usize, usize, usize) -> f64,
) -> f64 {
    let (mut weights, mut sum) = (0.0, 0.0);
    for other in 0..tokens {
        let weight: f64 = (0..dim)
            .map(|c| part(token, 0, c).max(0.0) * part(other, 1, c).max(0.0))
            .sum();
        weights += weight;
        sum += weight * part(other, 2, channel);
    }
    sum / (weights + 1e-15)
}

fn linear(s: &Setting, [batch, tokens, heads, dim]: [usize; 4]) -> Result<Ready> {
    let dims = [batch, tokens, heads * dim];
    let parts = [s.noise(1, &dims)?, s.noise(2, &dims)?, s.noise(3, &dims)?];
    let tensors = parts.each_ref().map(|values| values.tensor.clone());
    let run = move || {
        let [q, k, v] = &tensors;
        ops::linear_attention(&[HeadLayout::Apart(q, k, v)], heads, 1e-15)
    };
    let wanted = move |at: usize| {
        let (row, head, channel) = (at / (heads * dim), at / dim % heads, at % dim);
        let picture = row / tokens;
        plain_linear(tokens, dim, row % tokens, channel, |token, which, c| {
            parts[which].at(((picture * tokens + token) * heads + head) * dim + c)
        })
    };
    let count = batch * tokens * heads * dim;
    Ok(Ready::new(
        run,
        wanted,
        (4 * count * dim, s.bytes(4 * count)),
    ))
}

fn interleaved(s: &Setting) -> Result<Ready> {
    let [batch, tokens, heads, dim] = s.pick([2, 50, 2, 32], [1, 4096, 32, 32]);
    let dims = [batch, tokens, heads * 3 * dim];
    let scales = [s.noise(1, &dims)?, s.noise(2, &dims)?];
    let tensors = scales.each_ref().map(|values| values.tensor.clone());
    let run = move || {
        ops::linear_attention(
            &tensors.each_ref().map(HeadLayout::Interleaved),
            heads,
            1e-15,
        )
    };
    let wanted = move |at: usize| {
        let width = 2 * heads * dim;
        let (row, scale, head, channel) = (
            at / width,
            at % width / (heads * dim),
            at / dim % heads,
            at % dim,
        );
        let picture = row / tokens;
        plain_linear(tokens, dim, row % tokens, channel, |token, which, c| {
            scales[scale].at((((picture * tokens + token) * heads + head) * 3 + which) * dim + c)
        })
    };
    let count = batch * tokens * heads * dim;
    Ok(Ready::new(
        run,
        wanted,
        (8 * count * dim, s.bytes(8 * count)),
    ))
}

fn grouped(s: &Setting, [rows, groups, dim]: [usize; 3]) -> Result<Ready> {
    let (x, mix) = (
        s.noise(1, &[rows, groups * dim])?,
        s.vector(2, &[groups, dim, dim])?,
    );
    let parts = (x.tensor.clone(), mix.tensor.clone());
    let run = move || ops::grouped(&parts.0, &parts.1);
    let wanted = move |at: usize| {
        let (first, to, group) = (at / dim * dim, at % dim, at / dim % groups);
        (0..dim)
            .map(|c| x.at(first + c) * mix.at((group * dim + c) * dim + to))
            .sum()
    };
    let count = rows * groups * dim;
    Ok(Ready::new(
        run,
        wanted,
        (2 * count * dim, s.bytes(2 * count)),
    ))
}

/// Which keys are seen, and a cap.
struct Masks {
    lengths: bool,
    causal: bool,
    holes: bool,
    softcap: bool,
    ends: bool,
}

impl Masks {
    const LENGTHS: Self = Self {
        lengths: true,
        causal: false,
        holes: false,
        softcap: false,
        ends: false,
    };
    const CAUSAL: Self = Self {
        lengths: false,
        causal: true,
        holes: false,
        softcap: true,
        ends: false,
    };
    const ENDS: Self = Self {
        lengths: false,
        causal: false,
        holes: false,
        softcap: false,
        ends: true,
    };
    const HOLES: Self = Self {
        lengths: false,
        causal: false,
        holes: true,
        softcap: false,
        ends: false,
    };
}

fn softmax(s: &Setting, masks: &Masks, dims: [usize; 6]) -> Result<Ready> {
    let [batch, queries, keys, heads, groups, dim] = dims;
    let q = s.noise(1, &[batch, queries, heads * dim])?;
    let (k, v) = (
        s.noise(2, &[batch, keys, groups * dim])?,
        s.noise(3, &[batch, keys, groups * dim])?,
    );
    let length = move |picture: usize| keys - 5 * (picture + 1);
    let lengths: Vec<u32> = (0..batch).map(|picture| length(picture) as u32).collect();
    let lengths = masks
        .lengths
        .then(|| s.device.upload_u32(&lengths, &[batch]))
        .transpose()?;
    let hole = |picture: usize, key: usize| (key + picture) % 3 == 1;
    let mask: Vec<u32> = (0..batch * keys)
        .map(|at| u32::from(!hole(at / keys, at % keys)))
        .collect();
    let mask = masks
        .holes
        .then(|| s.device.upload_u32(&mask, &[batch, keys]))
        .transpose()?;
    // Queries see more and more, and the first of all nothing.
    let last = move |query: usize| (keys - 1) * query / (queries - 1).max(1);
    let ends: Vec<u32> = (0..queries).map(|query| last(query) as u32).collect();
    let ends = masks
        .ends
        .then(|| s.device.upload_u32(&ends, &[queries]))
        .transpose()?;
    let (causal, window) = (
        masks.causal.then_some(keys - queries),
        masks.causal.then_some(keys / 3),
    );
    let (softcap, scale) = (masks.softcap.then_some(2.0f32), 0.25f32);
    let (limited, holed, ended) = (masks.lengths, masks.holes, masks.ends);
    let tensors = [&q, &k, &v].map(|values: &Values| values.tensor.clone());
    let run = move || {
        let how = Attention {
            heads,
            key_value_heads: groups,
            scale,
            softcap,
            causal,
            window,
            lengths: lengths.as_ref(),
            mask: mask.as_ref(),
            ends: ends.as_ref(),
        };
        ops::attention(&tensors[0], &tensors[1], &tensors[2], &how)
    };
    let wanted = move |at: usize| {
        let (row, head, channel) = (at / (heads * dim), at / dim % heads, at % dim);
        let (picture, query, group) = (row / queries, row % queries, head / (heads / groups));
        let (mut weights, mut sum) = (0.0, 0.0);
        for key in 0..keys {
            let reach = query + causal.unwrap_or(keys);
            let hidden = (ended && key >= last(query))
                || (limited && key >= length(picture))
                || (holed && hole(picture, key))
                || key > reach
                || window.is_some_and(|window| key + window <= reach);
            if hidden {
                continue;
            }
            let place = ((picture * keys + key) * groups + group) * dim;
            let mut score: f64 = (0..dim)
                .map(|c| q.at((row * heads + head) * dim + c) * k.at(place + c))
                .sum();
            score *= f64::from(scale);
            if let Some(cap) = softcap.map(f64::from) {
                score = cap * (score / cap).tanh();
            }
            weights += score.exp();
            sum += score.exp() * v.at(place + channel);
        }
        if weights > 0.0 { sum / weights } else { 0.0 }
    };
    let work = 4 * batch * heads * queries * keys * dim;
    Ok(Ready::new(
        run,
        wanted,
        (
            work,
            s.bytes(2 * batch * (queries * heads + keys * groups) * dim),
        ),
    ))
}

/// Every second slot, and one that is not there.
fn write_keys(s: &Setting) -> Result<Ready> {
    let [rows, width, capacity] = s.pick([5, 12, 10], [32, 4096, 1280]);
    let (x, y) = (s.vector(1, &[rows, width])?, s.noise(2, &[rows, width])?);
    let before = s.noise(3, &[2, capacity, width])?;
    let slots: Vec<u32> = (0..rows as u32).map(|row| 2 * row + 2).collect();
    let slots = s.device.upload_u32(&slots, &[rows])?;
    let parts = [&x, &y, &before].map(|values: &Values| values.tensor.clone());
    let run = move || {
        let [x, y, before] = &parts;
        let half = |which: usize| ops::narrow(before, 0, which, 1);
        let (keys, values) = (half(0)?, half(1)?);
        ops::write_keys(x, y, &slots, &keys, &values)?;
        ops::concatenate(&[&keys, &values], 0)
    };
    let wanted = move |at: usize| {
        let (which, slot, channel) = (at / width / capacity, at / width % capacity, at % width);
        let row = (slot / 2).wrapping_sub(1);
        match slot % 2 == 0 && row < rows {
            true if which == 0 => x.at(row * width + channel),
            true => y.at(row * width + channel),
            false => before.at(at),
        }
    };
    Ok(Ready::new(run, wanted, (0, s.bytes(4 * rows * width))).exactly())
}

/// A row's token, its logit, and the sum, as numbers.
fn largest_logits(s: &Setting) -> Result<Ready> {
    use crate::ops::Barred;
    let [rows, tokens] = s.pick([3, 1300], [32, 126_464]);
    let mut host = super::noise(1, rows * tokens);
    // Two of the same size, a larger one that may not be found, and one without a share.
    for row in host.chunks_exact_mut(tokens) {
        (row[700], row[200], row[5], row[9]) = (2.5, 2.5, 3.0, 4.0);
    }
    let x = s.filled(&[rows, tokens], crate::tensor::Element::F32, host)?;
    let barred = [(5, Barred::Found), (9, Barred::Both)];
    let tensor = x.tensor.clone();
    let run = move || {
        let found = ops::largest_logits(&tensor, &barred)?;
        let numbers: Vec<f32> = found
            .iter()
            .flat_map(|row| {
                [
                    row.token as f32,
                    row.logit as f32,
                    row.largest as f32,
                    row.sum as f32,
                ]
            })
            .collect();
        tensor.device().upload(&numbers, &[rows, 4])
    };
    let wanted = move |at: usize| match at % 4 {
        0 => 200.0,
        1 => 2.5,
        2 => 3.0,
        _ => (0..tokens)
            .filter(|token| *token != 9)
            .map(|token| (x.at(at / 4 * tokens + token) - 3.0).exp())
            .sum(),
    };
    Ok(Ready::new(run, wanted, (rows * tokens, 4 * rows * tokens)))
}

fn rotary(s: &Setting, [rows, heads, dim]: [usize; 3], part: usize) -> Result<Ready> {
    let half = dim / part;
    let x = s.noise(1, &[rows, heads * dim])?;
    let (cosines, sines) = (s.vector(2, &[rows, half])?, s.vector(3, &[rows, half])?);
    let parts = [&x, &cosines, &sines].map(|values: &Values| values.tensor.clone());
    let run = move || ops::rotary(&parts[0], &parts[1], &parts[2], heads);
    let wanted = move |at: usize| {
        let (row, first, channel) = (at / (heads * dim), at / dim * dim, at % dim);
        if channel >= 2 * half {
            return x.at(at);
        }
        let angle = row * half + channel % half;
        let (a, b) = (
            x.at(first + channel % half),
            x.at(first + channel % half + half),
        );
        match channel < half {
            true => a * cosines.at(angle) - b * sines.at(angle),
            false => b * cosines.at(angle) + a * sines.at(angle),
        }
    };
    let count = rows * heads * dim;
    Ok(Ready::new(run, wanted, (6 * count, s.bytes(2 * count))))
}
