//! Many prompts of one picture: its cells are what they share, and what the tokens of each told them
//! ([`brisk_nn::two_way`]).

use brisk_nn::two_way::{
    Across, Along, Asked, Crossed, Enlarged, Factors, Looked, MOST_ROWS, Seen, Telling, Told,
    Update, each, enlarge, look, tell,
};
use brisk_nn::{ConvTranspose2d, D, DType, LayerNorm, Tensor, Trace, check_finite, ops, two_way};

use super::two_way::{Contracted, TwoWayLayer, rows, through};
use crate::Result;

/// Prompts from which on it repays to project a picture for them.
pub(super) const REPAYS: usize = 4;

/// What all prompts of a picture share, in every layer.
#[derive(Debug)]
pub(super) struct SharedCells {
    layers: Vec<SharedLayer>,
    last: SharedKeys,
    enlarged: SharedMap,
}

#[derive(Debug)]
struct SharedLayer {
    keys: SharedKeys,
    queries: Across,
    query_positions: Option<Across>,
    /// What all queries have in common, `[heads, dim, 1]`.
    query_constant: Tensor,
    /// What every cell is told, `[C]`.
    constant: Tensor,
    norms: Vec<f32>,
    crossed: Vec<Crossed>,
}

#[derive(Debug)]
struct SharedKeys {
    keys: Across,
    positions: Option<Across>,
    values: Along,
    /// What all values have in common, `[heads·dim]`.
    value_constant: Tensor,
}

#[derive(Debug)]
struct SharedMap {
    first: Across,
    /// `[4·C/4, C]`.
    first_weight: Tensor,
    constant: Vec<f32>,
    gain: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
    second: Vec<f32>,
    second_bias: Vec<f32>,
}

/// The networks that see cells, of which tokens take the projections on themselves.
pub(super) struct Networks<'a> {
    pub layers: Vec<Layer<'a>>,
    pub last: Contracted<'a>,
    pub last_norm: &'a LayerNorm,
    pub enlarge: &'a [ConvTranspose2d; 2],
    pub enlarged_norm: &'a LayerNorm,
}

/// A layer with the attention of its tokens and that of the cells.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    layer: &'a TwoWayLayer,
    to_image: Contracted<'a>,
    to_tokens: Contracted<'a>,
}

impl<'a> Networks<'a> {
    /// Those of layers for so many tokens; none where these are dearer than the cells, or too many.
    pub fn layers(layers: &'a [TwoWayLayer], tokens: usize) -> Option<Vec<Layer<'a>>> {
        let layers = layers.iter().map(|layer| {
            Some(Layer {
                layer,
                to_image: layer.to_image.contracted(tokens)?,
                to_tokens: layer.to_tokens.contracted(tokens)?,
            })
        });
        let layers: Vec<Layer> = layers.collect::<Option<_>>()?;
        (Self::told_rows(&layers, tokens) <= MOST_ROWS).then_some(layers)
    }

    /// Rows that layers tell the cells of a prompt.
    fn told_rows(layers: &[Layer], tokens: usize) -> usize {
        let heads = layers.iter().map(|layer| layer.to_tokens.heads());
        heads.sum::<usize>() * tokens
    }
}

/// Tokens behind the last layer `[prompts, T, C]`, by which masks' factors are made.
pub(super) type MakeFactors<'a> = dyn Fn(&Tensor) -> Result<Tensor> + 'a;

fn values(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}

/// Less the mean of each row.
fn centred(x: &Tensor) -> Result<Tensor> {
    x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)
}

/// `[B, T, heads·c]` to `[B, heads, T, c]`.
fn by_head(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, wide) = x.dims3()?;
    x.reshape((batch, tokens, heads, wide / heads))?
        .transpose(1, 2)?
        .contiguous()
}

/// `[B, heads·T, c]` to `[B, T, heads·c]`.
fn by_token(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, rows, wide) = x.dims3()?;
    let tokens = rows / heads;
    x.reshape((batch, heads, tokens, wide))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((batch, tokens, heads * wide))
}

/// Products of rows `[B, n, C]` with rows `[B, m, C]`.
fn products(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.matmul(&b.transpose(1, 2)?.contiguous()?)
}

/// Products of tokens' queries or keys `[B, T, heads·dim]`, through the `weights` `[heads, dim, C]` of cells, with what
/// these were told `[B, rows, C]`: of each prompt `[heads·T, rows]`. Nothing where they were told nothing.
fn asked(tokens: &Tensor, weights: &Tensor, told: Option<&Tensor>) -> Result<Vec<f32>> {
    let Some(told) = told else {
        return Ok(Vec::new());
    };
    let (heads, _, width) = weights.dims3()?;
    let (batch, count, _) = tokens.dims3()?;
    let rows = by_head(&through(tokens, weights)?, heads)?;
    values(&products(
        &rows.reshape((batch, heads * count, width))?,
        told,
    )?)
}

impl SharedKeys {
    /// Of the shared cells `[cells, C]` and what all have in common `[1, C]`. Positions `[cells, C]` are added to the
    /// cells at once where norms have not scaled these.
    fn new(
        Contracted { weights, .. }: Contracted,
        (cells, common): (&Tensor, &Tensor),
        positions: &Tensor,
        scaled: bool,
    ) -> Result<Self> {
        let (heads, dim, _) = weights.key.dims3()?;
        let key = rows(&weights.key)?;
        let value = rows(&weights.value.transpose(1, 2)?.contiguous()?)?;
        let project = |x: &Tensor, by: &Tensor| values(&ops::linear(x, by, None)?);
        let across =
            |x: &Tensor| -> Result<Across> { Ok(Across::new(&project(x, &key)?, heads * dim)) };
        let (keys, positions) = match scaled {
            true => (across(cells)?, Some(across(positions)?)),
            false => (across(&ops::add(cells, positions)?)?, None),
        };
        let constant = ops::linear(common, &value, None)?.flatten_all()?;
        Ok(Self {
            keys,
            positions,
            values: Along::new(&project(cells, &value)?, heads, dim),
            value_constant: ops::add(&constant, &weights.value_bias)?,
        })
    }

    /// What tokens `[B, T, C]` see of cells that were `told` `[B, rows, C]`, through the output projection.
    fn seen(
        &self,
        contracted: Contracted,
        tokens: &Tensor,
        (told, updates): (Option<&Tensor>, &mut [Update]),
    ) -> Result<Tensor> {
        let Contracted { attention, weights } = contracted;
        let (batch, count, _) = tokens.dims3()?;
        let (heads, dim, _) = weights.key.dims3()?;
        let (rows, scale) = (heads * count, contracted.scale());
        let queries = (attention.projections.query.forward(tokens)? * scale)?;
        let asked = asked(&queries, &weights.key, told)?;
        let queries = values(&by_head(&queries, heads)?)?;
        let per_prompt = asked.len() / batch;
        let picture = Looked {
            keys: &self.keys,
            positions: self.positions.as_ref(),
            values: &self.values,
        };
        let seen = each(updates, vec![(); batch], |index, update, ()| {
            let asked = Asked {
                tokens: count,
                queries: &queries[index * rows * dim..][..rows * dim],
                told: &asked[index * per_prompt..][..per_prompt],
            };
            look(picture, asked, update)
        });
        let join = |of: fn(&Seen) -> &Vec<f32>, width: usize| {
            let all: Vec<f32> = seen.iter().flat_map(of).copied().collect();
            Tensor::from_vec(all, (batch, rows, width))
        };
        let mut values = by_token(&join(|seen| &seen.values, dim)?, heads)?;
        if let Some(told) = told {
            let cells = join(|seen| &seen.told, per_prompt / rows)?.matmul(told)?;
            let of_told = through(&by_token(&cells, heads)?, &weights.value)?;
            values = ops::add(&values, &of_told)?;
        }
        // Shares sum to one.
        let values = values.broadcast_add(&self.value_constant)?;
        attention.projections.output.forward(&values)
    }
}

impl SharedLayer {
    fn new(
        layers: &[Layer],
        (cells, common): (&Tensor, &Tensor),
        positions: &Tensor,
        constants: &[Tensor],
    ) -> Result<(Self, Tensor)> {
        let index = layers.len() - 1;
        let of_cells = layers[index].to_tokens.weights;
        let scaled = index > 0;
        let (heads, dim, _) = of_cells.query.dims3()?;
        let query = rows(&of_cells.query)?;
        let across = |x: &Tensor, by: &Tensor| -> Result<Across> {
            Ok(Across::new(
                &values(&ops::linear(x, by, None)?)?,
                heads * dim,
            ))
        };
        let (queries, query_positions) = match scaled {
            true => (across(cells, &query)?, Some(across(positions, &query)?)),
            false => (across(&ops::add(cells, positions)?, &query)?, None),
        };
        let common_query = ops::linear(common, &query, None)?.reshape((heads * dim, 1))?;
        let query_constant = ops::add(&common_query, &of_cells.query_bias)?;

        let middle = centred(cells)?;
        let mut crossed = Vec::with_capacity(layers.len());
        // The map of what a layer told to centred cells, turned round.
        let mut adjoint = middle.clone();
        for (told_by, constant) in layers.iter().zip(constants).rev() {
            if !crossed.is_empty() {
                let (gain, _, _) = told_by.layer.norm4.parameters();
                adjoint = centred(&adjoint.broadcast_mul(gain)?)?;
            }
            let row = constant.reshape((1, constant.elem_count()))?;
            crossed.push(Crossed {
                projection: across(&adjoint, &rows(&told_by.to_tokens.weights.output)?)?,
                constant: values(&ops::linear(&adjoint, &row, None)?)?,
            });
        }
        crossed.reverse();
        let (gain, _, _) = layers[index].layer.norm4.parameters();
        let next = middle.broadcast_mul(gain)?;
        Ok((
            Self {
                keys: SharedKeys::new(layers[index].to_image, (cells, common), positions, scaled)?,
                queries,
                query_positions,
                query_constant: query_constant.reshape((heads, dim, 1))?,
                constant: constants[index].clone(),
                norms: values(&middle.sqr()?.sum_keepdim(D::Minus1)?)?,
                crossed,
            },
            next,
        ))
    }
}

/// What the prompts of one go were told and told themselves.
struct Prompted {
    /// `[B, rows, C]`, centred and by the gain of the last norm.
    told: Option<Tensor>,
    /// Values of each layer, of each prompt `[heads, tokens, dim]`.
    values: Vec<Vec<f32>>,
}

impl SharedCells {
    /// Projects the cells `[1, cells, C]` of a picture at `positions`. None where the convolutions' squares overlap.
    pub(super) fn new(
        networks: &Networks,
        cells: &Tensor,
        positions: &Tensor,
    ) -> Result<Option<Self>> {
        let Networks {
            layers,
            last,
            enlarge: [first, second],
            enlarged_norm,
            ..
        } = networks;
        let (Some(first), Some(second)) = (first.squares()?, second.squares()?) else {
            return Ok(None);
        };
        let width = cells.dim(2)?;
        let mut cells = cells.squeeze(0)?;
        let positions = positions.squeeze(0)?;
        let mut common = Tensor::zeros((1, width), DType::F32)?;
        let (mut shared, mut constants) = (Vec::new(), Vec::new());
        for index in 0..layers.len() {
            let Layer {
                layer, to_tokens, ..
            } = layers[index];
            let bias = &to_tokens.weights.output_bias;
            constants.push(ops::add(&common.flatten_all()?, bias)?);
            let some = &layers[..=index];
            let (made, next) = SharedLayer::new(some, (&cells, &common), &positions, &constants)?;
            shared.push(made);
            cells = next;
            common = match layer.norm4.parameters().1 {
                Some(bias) => bias.reshape((1, width))?,
                None => Tensor::zeros((1, width), DType::F32)?,
            };
        }
        let at_last = (&cells, &common);
        let scaled = !layers.is_empty();
        let (first_weight, first_bias) = first;
        let constant = ops::linear(&common, &first_weight, first_bias.as_ref())?;
        let (gain, bias, eps) = enlarged_norm.parameters();
        let none = |like: &Tensor| vec![0.0; like.dims()[0]];
        Ok(Some(Self {
            last: SharedKeys::new(*last, at_last, &positions, scaled)?,
            enlarged: SharedMap {
                first: Across::new(
                    &values(&ops::linear(&cells, &first_weight, None)?)?,
                    first_weight.dim(0)?,
                ),
                constant: values(&constant)?,
                first_weight,
                gain: values(gain)?,
                bias: bias.map_or_else(|| Ok(none(gain)), values)?,
                eps: eps as f32,
                second_bias: second
                    .1
                    .as_ref()
                    .map_or_else(|| Ok(none(&second.0)), values)?,
                second: values(&second.0)?,
            },
            layers: shared,
        }))
    }

    /// Tokens behind the last layer `[B, T, C]` of prompts whose first layer gets `tokens`; their masks' logits
    /// `[B, masks, 4h, 4w]` go to `logits`.
    pub(super) fn decode(
        &self,
        networks: &Networks,
        tokens: &Tensor,
        (size, factors): ([usize; 2], &MakeFactors),
        logits: &mut [f32],
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let count = tokens.dim(0)?;
        let together = two_way::together();
        let per_prompt = logits.len() / count;
        let mut updates: Vec<Update> = Vec::new();
        let mut parts = Vec::new();
        for start in (0..count).step_by(together) {
            let some = together.min(count - start);
            let first = tokens.narrow(0, start, some)?.contiguous()?;
            if updates.is_empty() {
                let rows = Networks::told_rows(&networks.layers, first.dim(1)?);
                updates = (0..some)
                    .map(|_| Update::new(size[0] * size[1], rows))
                    .collect();
            }
            let updates = &mut updates[..some];
            updates.iter_mut().for_each(Update::clear);
            let logits = &mut logits[start * per_prompt..(start + some) * per_prompt];
            let (tokens, told) = self.behind_layers(networks, &first, updates, trace)?;
            let factors = factors(&tokens)?;
            self.masks(&told, &factors, size, (updates, logits))?;
            parts.push(tokens);
        }
        Tensor::cat(&parts, 0)
    }

    fn behind_layers(
        &self,
        networks: &Networks,
        first: &Tensor,
        updates: &mut [Update],
        trace: &mut Trace,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let mut prompted = Prompted {
            told: None,
            values: Vec::new(),
        };
        let mut tokens = first.clone();
        for (index, (of, shared)) in networks.layers.iter().zip(&self.layers).enumerate() {
            tokens = of.layer.attend(&tokens, first)?;
            let placed = ops::add(&tokens, first)?;
            let told = (prompted.told.as_ref(), &mut *updates);
            let looked = shared.keys.seen(of.to_image, &placed, told)?;
            tokens = of.layer.think(&tokens, &looked)?;
            let placed = ops::add(&tokens, first)?;
            shared.tell(*of, (&tokens, &placed), &mut prompted, updates)?;
            let name = format!("layers.{index}.tokens");
            check_finite(&tokens, "mask decoder", &name)?;
            trace.see(&name, &tokens);
        }
        let placed = ops::add(&tokens, first)?;
        let told = (prompted.told.as_ref(), updates);
        let looked = self.last.seen(networks.last, &placed, told)?;
        let tokens = networks.last_norm.forward(&ops::add(&tokens, &looked)?)?;
        trace.see("tokens", &tokens);
        Ok((tokens, prompted.told))
    }

    fn masks(
        &self,
        told: &Option<Tensor>,
        factors: &Tensor,
        size: [usize; 2],
        (updates, logits): (&mut [Update], &mut [f32]),
    ) -> Result<()> {
        let map = &self.enlarged;
        let batch = updates.len();
        let told = match told {
            Some(told) => {
                let (_, rows, width) = told.dims3()?;
                let flat = told.reshape((batch * rows, width))?;
                let wide = map.first_weight.dim(0)?;
                let first = ops::linear(&flat, &map.first_weight, None)?;
                values(
                    &first
                        .reshape((batch, rows, wide))?
                        .transpose(1, 2)?
                        .contiguous()?,
                )?
            }
            None => Vec::new(),
        };
        let factors = values(factors)?;
        let (of_told, of_factors) = (told.len() / batch, factors.len() / batch);
        let picture = Enlarged {
            first: &map.first,
            constant: &map.constant,
            norm: (&map.gain, &map.bias, map.eps),
            second: (&map.second, &map.second_bias),
            size,
        };
        let logits = logits.chunks_exact_mut(logits.len() / batch).collect();
        each(updates, logits, |index, update, logits| {
            let prompt = Factors {
                told: &told[index * of_told..][..of_told],
                masks: &factors[index * of_factors..][..of_factors],
            };
            enlarge(picture, prompt, update, logits);
        });
        Ok(())
    }
}

impl SharedLayer {
    fn tell(
        &self,
        layer: Layer,
        (tokens, placed): (&Tensor, &Tensor),
        prompted: &mut Prompted,
        updates: &mut [Update],
    ) -> Result<()> {
        let Contracted { attention, weights } = layer.to_tokens;
        let (batch, count, width) = tokens.dims3()?;
        let (heads, dim, _) = weights.query.dims3()?;
        let (rows, scale) = (heads * count, layer.to_tokens.scale());
        let keys = (attention.projections.key.forward(placed)? * scale)?;
        let spoken = attention.projections.value.forward(tokens)?;
        let asked = asked(&keys, &weights.query, prompted.told.as_ref())?;
        let constants = by_head(&through(&keys, &self.query_constant)?, heads)?;
        let said = by_head(&through(&spoken, &weights.output)?, heads)?;
        // The first head tells what every cell is told.
        let first = said.narrow(1, 0, 1)?.broadcast_add(&self.constant)?;
        let said = match heads {
            1 => first,
            _ => Tensor::cat(&[first, said.narrow(1, 1, heads - 1)?], 1)?,
        };
        let said = said.contiguous()?.reshape((batch, rows, width))?;
        let told = match &prompted.told {
            Some(told) => Tensor::cat(&[told, &said], 1)?,
            None => said,
        };
        let told = centred(&told)?;
        let all_rows = told.dim(1)?;
        let gram = values(&products(&told, &told)?)?;
        prompted.values.push(values(&by_head(&spoken, heads)?)?);

        let (keys, constants) = (values(&by_head(&keys, heads)?)?, values(&constants)?);
        let (gain, _, eps) = layer.layer.norm4.parameters();
        let picture = Told {
            queries: &self.queries,
            positions: self.query_positions.as_ref(),
            norms: &self.norms,
            crossed: &self.crossed,
        };
        let (of_rows, of_asked, of_gram) = (rows * dim, asked.len() / batch, all_rows * all_rows);
        let spoken = &prompted.values;
        each(updates, vec![(); batch], |index, update, ()| {
            let spoken = spoken
                .iter()
                .map(|values| &values[index * of_rows..][..of_rows]);
            let spoken: Vec<&[f32]> = spoken.collect();
            let prompt = Telling {
                heads,
                tokens: count,
                keys: &keys[index * of_rows..][..of_rows],
                told: &asked[index * of_asked..][..of_asked],
                constants: &constants[index * rows..][..rows],
                values: &spoken,
                gram: &gram[index * of_gram..][..of_gram],
                width,
                eps: eps as f32,
            };
            tell(picture, prompt, update);
        });
        prompted.told = Some(told.broadcast_mul(gain)?);
        Ok(())
    }
}
