//! A layer with other rows and another width.

use crate::integer::{GROUP, Integers, MICRO_GROUP};
use crate::nvfp4::{Floats, e4m3_code};
use crate::record::{Codes, Record};
use crate::{Branch, Int4Weight};

impl Record {
    /// The layer with other rows and another width: output i is the old output `rows[i]`, or one of
    /// zeros; inputs are cut, or padded with zeros, to `inputs`, a multiple of the group.
    ///
    /// # Panics
    /// When a row does not exist, or `inputs` is not a multiple of 64.
    pub fn arrange(&self, rows: &[Option<usize>], inputs: usize) -> Record {
        assert!(inputs.is_multiple_of(GROUP), "{inputs} inputs");
        let from = self.inputs;
        let codes = match &self.codes {
            Codes::Int4(weight) => Codes::Int4(Integers {
                codes: arranged(&weight.codes, from, rows, inputs, 0),
                scales: arranged(&weight.scales, from / GROUP, rows, inputs / GROUP, 1.0),
                group: GROUP,
            }),
            Codes::Nvfp4(floats) => {
                let one = e4m3_code(1.0);
                let groups = (from / MICRO_GROUP, inputs / MICRO_GROUP);
                let channels = floats.channel_scales.as_ref();
                Codes::Nvfp4(Floats {
                    codes: arranged(&floats.codes, from, rows, inputs, 0),
                    scales: arranged(&floats.scales, groups.0, rows, groups.1, one),
                    tensor_scale: floats.tensor_scale,
                    channel_scales: channels.map(|scales| arranged(scales, 1, rows, 1, 1.0)),
                })
            }
        };
        let whole = [Some(0)];
        Record {
            outputs: rows.len(),
            inputs,
            half: self.half,
            codes,
            smooth: arranged(&self.smooth, from, &whole, inputs, 1.0),
            smooth_orig: self
                .smooth_orig
                .as_ref()
                .map(|smooth| arranged(smooth, from, &whole, inputs, 1.0)),
            bias: self
                .bias
                .as_ref()
                .map(|bias| arranged(bias, 1, rows, 1, 0.0)),
            branch: self.branch.as_ref().map(|branch| {
                let all: Vec<_> = (0..branch.rank).map(Some).collect();
                Branch {
                    rank: branch.rank,
                    down: arranged(&branch.down, from, &all, inputs, 0.0),
                    up: arranged(&branch.up, branch.rank, rows, branch.rank, 0.0),
                }
            }),
        }
    }

    /// The layer as it is computed: layers of `outputs` results each, one after another, for the first
    /// `inputs` inputs. None where its codes are floats, which are not computed.
    pub fn into_weight(self, outputs: Vec<usize>, inputs: usize) -> Option<Int4Weight> {
        let Codes::Int4(integers) = self.codes else {
            return None;
        };
        let padded = self.inputs;
        let mut smooth = self.smooth;
        smooth.truncate(inputs);
        let branch = self.branch.map(|mut branch| {
            if padded != inputs {
                let rows = branch.down.chunks_exact(padded);
                branch.down = rows.flat_map(|row| &row[..inputs]).copied().collect();
            }
            branch
        });
        Some(Int4Weight {
            outputs,
            inputs,
            codes: integers.codes,
            scales: integers.scales,
            zeros: None,
            smooth: Some(smooth),
            branch,
            bias: self.bias,
            half: self.half,
        })
    }
}

/// Rows of a matrix `[_, from]`, chosen, cut or padded with `fill` to `[rows.len(), to]`.
fn arranged<T: Copy>(
    values: &[T],
    from: usize,
    rows: &[Option<usize>],
    to: usize,
    fill: T,
) -> Vec<T> {
    let mut out = vec![fill; rows.len() * to];
    let kept = from.min(to);
    for (out, row) in out.chunks_exact_mut(to.max(1)).zip(rows) {
        if let Some(row) = row {
            out[..kept].copy_from_slice(&values[row * from..row * from + kept]);
        }
    }
    out
}
