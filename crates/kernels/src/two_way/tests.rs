use super::*;
use crate::reference::{assert_close, noise};

const HEADS: usize = 2;
const DIM: usize = 5;
const INNER: usize = HEADS * DIM;
const WIDTH: usize = 24;
const TOKENS: usize = 3;
const ROWS: usize = HEADS * TOKENS;
const EPS: f32 = 1e-5;

/// `a` `[rows, inner]` times the transpose of `b` `[columns, inner]`.
fn times(a: &[f32], b: &[f32], inner: usize) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum::<f64>() as f32
    };
    let rows = a.chunks_exact(inner);
    rows.flat_map(|a| b.chunks_exact(inner).map(move |b| dot(a, b)))
        .collect()
}

fn turned(x: &[f32], columns: usize) -> Vec<f32> {
    let rows = x.len() / columns;
    (0..x.len())
        .map(|at| x[at % rows * columns + at / rows])
        .collect()
}

fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    let b = b.iter().cycle();
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn softmax(row: &mut [f32]) {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut()
        .for_each(|value| *value = (*value - top).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

fn centred(x: &[f32]) -> Vec<f32> {
    let rows = x.chunks_exact(WIDTH).flat_map(|row| {
        let mean = row.iter().sum::<f32>() / WIDTH as f32;
        row.iter().map(move |value| value - mean)
    });
    rows.collect()
}

fn gained(x: &[f32], gain: &[f32]) -> Vec<f32> {
    x.iter()
        .zip(gain.iter().cycle())
        .map(|(x, g)| x * g)
        .collect()
}

/// Rows of `[heads·tokens, dim]` through the rows `[heads·dim, width]` of their heads.
fn through(x: &[f32], weights: &[f32]) -> Vec<f32> {
    let heads = x
        .chunks_exact(TOKENS * DIM)
        .zip(weights.chunks_exact(DIM * WIDTH));
    heads
        .flat_map(|(x, weights)| times(x, &turned(weights, WIDTH), DIM))
        .collect()
}

/// A layer's projections `[inner, width]`, what it tells every cell, its gain and bias; what a prompt's tokens say.
struct Layer {
    query: Vec<f32>,
    output: Vec<f32>,
    constant: Vec<f32>,
    gain: Vec<f32>,
    bias: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Layer {
    fn new(seed: u64) -> Self {
        let of = |len: usize, at: u64| noise(len, seed + at);
        Self {
            query: of(INNER * WIDTH, 1),
            output: of(INNER * WIDTH, 2),
            constant: of(WIDTH, 3),
            gain: sum(&of(WIDTH, 4), &[1.0]),
            bias: of(WIDTH, 5),
            keys: of(ROWS * DIM, 6),
            values: of(ROWS * DIM, 7),
        }
    }

    /// What the tokens tell, what all cells are told with the first head.
    fn told(&self) -> Vec<f32> {
        let mut told = through(&self.values, &self.output);
        for row in told.chunks_exact_mut(WIDTH).take(TOKENS) {
            row.iter_mut()
                .zip(&self.constant)
                .for_each(|(r, c)| *r += c);
        }
        told
    }
}

/// Cells of a prompt as they are, which everything is held to.
fn plainly(cells: &[f32], positions: &[f32], layer: &Layer) -> Vec<f32> {
    let queries = times(&sum(cells, positions), &layer.query, WIDTH);
    let told = layer.told();
    let mut next = cells.to_vec();
    for (cell, query) in next
        .chunks_exact_mut(WIDTH)
        .zip(queries.chunks_exact(INNER))
    {
        for head in 0..HEADS {
            let query = &query[head * DIM..(head + 1) * DIM];
            let keys = &layer.keys[head * TOKENS * DIM..(head + 1) * TOKENS * DIM];
            let mut shares = times(query, keys, DIM);
            softmax(&mut shares);
            for (token, share) in shares.iter().enumerate() {
                let told = &told[(head * TOKENS + token) * WIDTH..][..WIDTH];
                cell.iter_mut().zip(told).for_each(|(c, t)| *c += share * t);
            }
        }
        let cell_centred = centred(cell);
        let variance = cell_centred.iter().map(|x| x * x).sum::<f32>() / WIDTH as f32;
        for (i, value) in cell.iter_mut().enumerate() {
            *value = cell_centred[i] / (variance + EPS).sqrt() * layer.gain[i] + layer.bias[i];
        }
    }
    next
}

fn dots(cells: &[f32], row: &[f32]) -> Vec<f32> {
    times(cells, row, WIDTH)
}

#[test]
fn cells_that_nobody_holds_are_what_they_would_be() {
    for cells_count in [5, 16, 37, 300] {
        let layers = [Layer::new(10), Layer::new(20)];
        let shared = noise(cells_count * WIDTH, 1);
        let positions = noise(cells_count * WIDTH, 2);
        let mut plain = shared.clone();
        let mut update = Update::new(cells_count, 2 * ROWS);
        // The shared cells as they come through the layers, what was told and what all have in common.
        let mut shared = shared;
        let mut told: Vec<f32> = Vec::new();
        let mut common = vec![0.0f32; WIDTH];
        for (index, layer) in layers.iter().enumerate() {
            plain = plainly(&plain, &positions, layer);
            let constant = sum(&layer.constant, &common);
            let layer = Layer {
                constant,
                keys: layer.keys.clone(),
                ..Layer::new(10 * (index as u64 + 1))
            };
            let middle = centred(&shared);
            let crossed: Vec<Crossed> = layers[..=index]
                .iter()
                .enumerate()
                .map(|(of, told_by)| {
                    let mut adjoint = middle.clone();
                    for between in layers[of..index].iter().rev() {
                        adjoint = centred(&gained(&adjoint, &between.gain));
                    }
                    let constant = if of == index {
                        &layer.constant
                    } else {
                        &told_by.constant
                    };
                    Crossed {
                        projection: Across::new(&times(&adjoint, &told_by.output, WIDTH), INNER),
                        constant: dots(&adjoint, constant),
                    }
                })
                .collect();
            let through_query = through(&layer.keys, &layer.query);
            let asked = times(&through_query, &told, WIDTH);
            told.extend(layer.told());
            told = centred(&told);
            let queries = Across::new(&times(&shared, &layer.query, WIDTH), INNER);
            let of_positions = Across::new(&times(&positions, &layer.query, WIDTH), INNER);
            let norms: Vec<f32> = middle
                .chunks_exact(WIDTH)
                .map(|row| row.iter().map(|x| x * x).sum())
                .collect();
            let values: Vec<&[f32]> = layers[..=index].iter().map(|l| &l.values[..]).collect();
            tell(
                Told {
                    queries: &queries,
                    positions: Some(&of_positions),
                    norms: &norms,
                    crossed: &crossed,
                },
                Telling {
                    heads: HEADS,
                    tokens: TOKENS,
                    keys: &layer.keys,
                    told: &asked,
                    constants: &times(&through_query, &common, WIDTH),
                    values: &values,
                    gram: &times(&told, &told, WIDTH),
                    width: WIDTH,
                    eps: EPS,
                },
                &mut update,
            );
            told = gained(&told, &layer.gain);
            shared = gained(&middle, &layer.gain);
            common.clone_from(&layer.bias);
        }

        let query = noise(ROWS * DIM, 41);
        let (key, value) = (noise(INNER * WIDTH, 42), noise(INNER * WIDTH, 43));
        let projected = |cells: &[f32], by: &[f32]| times(cells, by, WIDTH);
        let seen = look(
            Looked {
                keys: &Across::new(&projected(&shared, &key), INNER),
                positions: Some(&Across::new(&projected(&positions, &key), INNER)),
                values: &Along::new(&projected(&shared, &value), HEADS, DIM),
            },
            Asked {
                tokens: TOKENS,
                queries: &query,
                told: &times(&through(&query, &key), &told, WIDTH),
            },
            &update,
        );
        let placed_keys = projected(&sum(&plain, &positions), &key);
        let plain_values = projected(
            &sum(&plain, &common.iter().map(|b| -b).collect::<Vec<_>>()),
            &value,
        );
        for head in 0..HEADS {
            for token in 0..TOKENS {
                let row = head * TOKENS + token;
                let query = &query[row * DIM..(row + 1) * DIM];
                let of_head = |x: &[f32]| -> Vec<f32> {
                    let rows = x.chunks_exact(INNER);
                    rows.flat_map(|row| row[head * DIM..(head + 1) * DIM].to_vec())
                        .collect()
                };
                let mut shares = times(query, &of_head(&placed_keys), DIM);
                softmax(&mut shares);
                let want = times(&shares, &turned(&of_head(&plain_values), DIM), cells_count);
                let told_seen = &seen.told[row * 2 * ROWS..(row + 1) * 2 * ROWS];
                let cell = times(told_seen, &turned(&told, WIDTH), 2 * ROWS);
                let value = &value[head * DIM * WIDTH..(head + 1) * DIM * WIDTH];
                let found = sum(
                    &seen.values[row * DIM..(row + 1) * DIM],
                    &times(&cell, value, WIDTH),
                );
                assert_close(&found, &want, 2e-5);
            }
        }
        enlarged(&plain, (&shared, &told, &common), &update);
    }
}

/// Masks of the cells as they are and as they are not.
fn enlarged(plain: &[f32], (shared, told, common): (&[f32], &[f32], &[f32]), update: &Update) {
    const MIDDLE: usize = 6;
    const INNER: usize = 3;
    const MASKS: usize = 2;
    let cells = plain.len() / WIDTH;
    let (height, width) = (1, cells);
    let first = noise(4 * MIDDLE * WIDTH, 51);
    let (gain, bias) = (noise(MIDDLE, 52), noise(MIDDLE, 53));
    let (second, second_bias) = (noise(4 * INNER * MIDDLE, 54), noise(4 * INNER, 55));
    let factors = noise(MASKS * INNER, 56);
    let mut found = vec![f32::NAN; MASKS * 16 * cells];
    enlarge(
        Enlarged {
            first: &Across::new(&times(shared, &first, WIDTH), 4 * MIDDLE),
            constant: &times(common, &first, WIDTH),
            norm: (&gain, &bias, EPS),
            second: (&second, &second_bias),
            size: [height, width],
        },
        Factors {
            told: &times(&first, told, WIDTH),
            masks: &factors,
        },
        update,
        &mut found,
    );
    let gelu = crate::pointwise::math::gelu_erf;
    let mut want = vec![0.0f32; found.len()];
    for (at, cell) in plain.chunks_exact(WIDTH).enumerate() {
        let map = times(cell, &first, WIDTH);
        for (square, map) in map.chunks_exact(MIDDLE).enumerate() {
            let mean = map.iter().sum::<f32>() / MIDDLE as f32;
            let variance = map.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / MIDDLE as f32;
            let map: Vec<f32> = map
                .iter()
                .enumerate()
                .map(|(i, x)| gelu((x - mean) / (variance + EPS).sqrt() * gain[i] + bias[i]))
                .collect();
            let map = sum(&times(&map, &second, MIDDLE), &second_bias);
            let map: Vec<f32> = map.into_iter().map(gelu).collect();
            for (inner, map) in map.chunks_exact(INNER).enumerate() {
                let row = 2 * (square / 2) + inner / 2;
                let column = 2 * (square % 2) + inner % 2;
                for (mask, value) in times(map, &factors, INNER).into_iter().enumerate() {
                    want[mask * 16 * cells + row * 4 * width + 4 * at + column] = value;
                }
            }
        }
    }
    assert_close(&found, &want, 5e-5);
}
