//! Softmax attention of several sequences that lie one after another in one tensor.

use std::ops::Range;

use super::attention::AttentionOptions;
use super::linear::shape_error;
use super::storage::{cpu_slice, tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::attention::{self as softmax, AttentionShape};
use candle_core::{
    CpuStorage, CustomOp3, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};

/// Queries of one sequence and the keys that they see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionSpan {
    /// Rows of the queries.
    pub queries: Range<usize>,
    /// Rows of keys and values.
    pub keys: Range<usize>,
    /// How many keys stand before the first query, where each sees these, its own and those between; none: all queries
    /// see all keys.
    pub causal: Option<usize>,
}

/// Softmax attention of `spans`: q `[1, queries, heads·dim]`, k and v `[1, keys, kv_heads·dim]`, to
/// the shape of q. The spans' queries follow each other and cover q; their keys may be any rows.
/// Differentiable, without a copy of any sequence.
///
/// # Errors
/// Tensors that do not fit the options or the spans, or options with a mask: the spans are the mask.
pub fn span_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spans: Vec<AttentionSpan>,
    options: &AttentionOptions,
) -> Result<Tensor> {
    let (_, queries, width) = q
        .dims3()
        .map_err(|_| shape_error("span_attention", q.dims(), "[1, queries, channels]"))?;
    let (heads, groups) = (options.heads, options.key_value_heads);
    let keys = k.dims().get(1).copied().unwrap_or(0);
    let mut next = 0;
    let covered = spans.iter().all(|span| {
        let follows = span.queries.start == next && span.queries.end >= next;
        next = span.queries.end;
        follows && span.keys.start <= span.keys.end && span.keys.end <= keys
    });
    let unmasked = options.causal.is_none()
        && options.key_lengths.is_none()
        && options.key_mask.is_none()
        && options.sliding_window.is_none();
    let fits = heads > 0
        && groups > 0
        && heads.is_multiple_of(groups)
        && width.is_multiple_of(heads)
        && q.dims()[0] == 1
        && k.dims() == [1, keys, width / heads * groups]
        && v.dims() == k.dims();
    if !(fits && covered && next == queries && unmasked) {
        let expected = format!(
            "unmasked spans over q {:?} and k, v [1, keys, {groups} heads of {width}/{heads} channels]",
            q.dims()
        );
        return Err(shape_error("span_attention", k.dims(), &expected));
    }
    let op = SpanAttention {
        spans,
        heads,
        groups,
        dim: width / heads,
        scale: options.scale,
        softcap: options.softcap,
    };
    q.contiguous()?
        .apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

struct SpanAttention {
    spans: Vec<AttentionSpan>,
    heads: usize,
    groups: usize,
    dim: usize,
    scale: f32,
    softcap: Option<f32>,
}

/// The values of some rows.
fn rows(range: &Range<usize>, width: usize) -> Range<usize> {
    range.start * width..range.end * width
}

impl SpanAttention {
    fn shape(&self, span: &AttentionSpan) -> AttentionShape {
        AttentionShape {
            batch: 1,
            queries: span.queries.len(),
            keys: span.keys.len(),
            heads: self.heads,
            key_value_heads: self.groups,
            dim: self.dim,
            scale: self.scale,
            softcap: self.softcap,
            causal_offset: span.causal,
            window: None,
            key_mask: None,
        }
    }

    fn widths(&self) -> (usize, usize) {
        (self.heads * self.dim, self.groups * self.dim)
    }
}

impl CustomOp3 for SpanAttention {
    fn name(&self) -> &'static str {
        "span_attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (q, k, v) = (cpu_slice(q, lq)?, cpu_slice(k, lk)?, cpu_slice(v, lv)?);
        let (width, key_width) = self.widths();
        let mut o = vec![0.0; q.len()];
        for span in &self.spans {
            let (at, from) = (rows(&span.queries, width), rows(&span.keys, key_width));
            let (k, v) = (&k[from.clone()], &v[from]);
            softmax::forward(&self.shape(span), &q[at.clone()], k, v, &mut o[at]);
        }
        Ok((CpuStorage::F32(o), lq.shape().clone()))
    }

    fn bwd(
        &self,
        q: &HostTensor,
        k: &HostTensor,
        v: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<(Option<HostTensor>, Option<HostTensor>, Option<HostTensor>)> {
        let (q_dims, k_dims) = (q.dims().to_vec(), k.dims().to_vec());
        let (width, key_width) = self.widths();
        with_slices!([q, k, v, grad], {
            let mut dq = vec![0.0; q.len()];
            let (mut dk, mut dv) = (vec![0.0; k.len()], vec![0.0; v.len()]);
            for span in &self.spans {
                let (at, from) = (rows(&span.queries, width), rows(&span.keys, key_width));
                let (own_q, own_k, own_v) = softmax::backward(
                    &self.shape(span),
                    &q[at.clone()],
                    &k[from.clone()],
                    &v[from.clone()],
                    &grad[at.clone()],
                );
                dq[at].copy_from_slice(&own_q);
                for (all, own) in [(&mut dk, own_k), (&mut dv, own_v)] {
                    let pairs = all[from.clone()].iter_mut().zip(own);
                    pairs.for_each(|(all, own)| *all += own);
                }
            }
            Ok((
                Some(tensor(dq, &q_dims)?),
                Some(tensor(dk, &k_dims)?),
                Some(tensor(dv, &k_dims)?),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::attention::attention;
    use super::*;
    use crate::tensor;

    fn variable(rows: usize, width: usize, seed: usize) -> Tensor {
        let values: Vec<f32> = (0..rows * width)
            .map(|i| (((i * 37 + seed * 11) % 29) as f32 - 14.0) / 10.0)
            .collect();
        tensor::variable(values, &[1, rows, width])
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn span(queries: Range<usize>, keys: Range<usize>) -> AttentionSpan {
        AttentionSpan {
            queries,
            keys,
            causal: None,
        }
    }

    /// A causal span is one span for each of its queries.
    #[test]
    fn causal_spans_are_those_of_their_queries() {
        let options = AttentionOptions::new(2, 4);
        let run = |spans: Vec<AttentionSpan>| {
            let [q, k, v] = [(6, 1), (8, 2), (8, 3)].map(|(rows, seed)| variable(rows, 8, seed));
            let out = span_attention(&q, &k, &v, spans, &options).unwrap();
            let store = out.sqr().unwrap().sum_all().unwrap();
            let store = store.host().unwrap().backward().unwrap();
            let gradients =
                [q, k, v].map(|x| values(&store.get(&x.host().unwrap()).unwrap().into()));
            (values(&out), gradients)
        };
        let causal = |queries: Range<usize>, keys: Range<usize>, before: usize| AttentionSpan {
            causal: Some(before),
            ..span(queries, keys)
        };
        let together = run(vec![causal(0..3, 0..3, 0), causal(3..6, 3..8, 2)]);
        let first = (0..3).map(|at| span(at..at + 1, 0..at + 1));
        let second = (0..3).map(|at| span(at + 3..at + 4, 3..at + 6));
        let apart = run(first.chain(second).collect());
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&together.0, &apart.0));
        for (a, b) in together.1.iter().zip(&apart.1) {
            assert!(close(a, b));
        }
    }

    /// Spans with keys that overlap, as block-causal attention has them.
    #[test]
    fn equals_one_attention_a_span_forward_and_backward() {
        let options = AttentionOptions {
            key_value_heads: 2,
            ..AttentionOptions::new(4, 3)
        };
        let (q, k, v) = (variable(7, 12, 1), variable(9, 6, 2), variable(9, 6, 3));
        let spans = vec![span(0..3, 0..4), span(3..5, 0..6), span(5..7, 6..9)];
        let one = |span: &AttentionSpan| {
            let part =
                |x: &Tensor, range: &Range<usize>| x.narrow(1, range.start, range.len()).unwrap();
            let (keys, queries) = (&span.keys, &span.queries);
            attention(
                &part(&q, queries),
                &part(&k, keys),
                &part(&v, keys),
                &options,
            )
            .unwrap()
        };
        let apart: Vec<Tensor> = spans.iter().map(one).collect();
        let apart = Tensor::cat(&apart, 1).unwrap();
        let packed = span_attention(&q, &k, &v, spans, &options).unwrap();
        assert_eq!(values(&packed), values(&apart));
        let weights = variable(7, 12, 5);
        let gradient = |y: &Tensor| {
            let loss = (y * &weights).unwrap().sum_all().unwrap();
            let store = loss.host().unwrap().backward().unwrap();
            [&q, &k, &v].map(|x| values(&store.get(x.on_host("test").unwrap()).unwrap().into()))
        };
        for (a, b) in gradient(&packed).iter().zip(&gradient(&apart)) {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }

    #[test]
    fn spans_must_cover_the_queries_and_be_the_only_mask() {
        let options = AttentionOptions::new(2, 3);
        let (q, k) = (variable(4, 6, 1), variable(5, 6, 2));
        let run = |spans: Vec<AttentionSpan>, options: &AttentionOptions| {
            span_attention(&q, &k, &k, spans, options).is_ok()
        };
        assert!(run(vec![span(0..4, 0..5)], &options));
        assert!(!run(vec![span(0..3, 0..5)], &options));
        assert!(!run(vec![span(0..2, 0..5), span(3..4, 0..5)], &options));
        assert!(!run(vec![span(0..4, 0..6)], &options));
        let causal = AttentionOptions {
            causal: Some(0),
            ..options
        };
        assert!(!run(vec![span(0..4, 0..5)], &causal));
    }
}
