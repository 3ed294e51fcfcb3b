//! Residual quantization (arXiv 2203.01941): each codeword takes what those before it leave.

use brisk_nn::{Codebook, Init, Tensor, Weights};

use super::TowerConfig;
use crate::{Error, Result};

/// One codebook for all depths, or one for each.
#[derive(Debug)]
pub struct Quantizer {
    codebooks: Vec<Codebook>,
    depth: usize,
    width: usize,
}

/// Vectors in codes.
#[derive(Debug)]
pub struct Encoded {
    /// Codes `[places·D]`, all depths of a place one after another.
    pub codes: Vec<u32>,
    /// Sums of their codewords `[places,C]`.
    pub sum: Tensor,
    /// What is left after each depth: the squared length a place.
    pub residuals: Vec<Vec<f32>>,
}

/// What one depth of places does.
#[derive(Debug)]
pub struct AtDepth<'a> {
    /// Which.
    pub depth: usize,
    /// What the depths before it leave, `[places,C]`.
    pub wanted: &'a Tensor,
    /// The codes of it, one a place.
    pub codes: &'a [u32],
    /// The codewords of all depths up to this one, `[places,C]`.
    pub sum: &'a Tensor,
}

impl Quantizer {
    /// Reads `codebooks.{d}`; of a shared one the first that is stored.
    pub(super) fn load(config: &TowerConfig, weights: &Weights) -> Result<Self> {
        let (count, width) = (config.n_embed, config.embed_dim);
        let stored = match config.shared_codebook {
            true => vec![Self::shared(config, weights)],
            false => (0..config.depth).collect(),
        };
        let codebooks = stored.into_iter().map(|index| {
            // The last row stands for what is padded and is no codeword.
            let table = weights.pp("codebooks").pp(index);
            let table = table.get("weight", &[count + 1, width], Init::Normal(1.0))?;
            Codebook::new(table.narrow(0, 0, count)?.contiguous()?)
        });
        Ok(Self {
            codebooks: codebooks.collect::<Result<_>>()?,
            depth: config.depth,
            width,
        })
    }

    /// Which of the places of a shared codebook the file has filled.
    pub(super) fn shared(config: &TowerConfig, weights: &Weights) -> usize {
        let has = |index: &usize| weights.contains(&format!("codebooks.{index}.weight"));
        (0..config.depth).find(has).unwrap_or(0)
    }

    /// Codes of a place.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Channels of a codeword.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of codewords of each depth.
    pub fn count(&self) -> usize {
        self.codebooks[0].count()
    }

    fn codebook(&self, depth: usize) -> &Codebook {
        &self.codebooks[depth.min(self.codebooks.len() - 1)]
    }

    /// Codewords `[n,C]` of codes of depth `depth`.
    ///
    /// # Errors
    /// A code outside the codebook.
    pub fn codewords(&self, depth: usize, codes: &[u32]) -> Result<Tensor> {
        self.codebook(depth).lookup(codes)
    }

    /// Sums of the codewords of the first 1, 2, … depths of places `[n·D]`, each `[n,C]`.
    ///
    /// # Errors
    /// Codes that are no multiple of the depth, or outside the codebook.
    pub fn sums(&self, codes: &[u32]) -> Result<Vec<Tensor>> {
        if codes.is_empty() || !codes.len().is_multiple_of(self.depth) {
            return Err(Error::Shape(format!(
                "{} codes; expected {} for each place",
                codes.len(),
                self.depth
            )));
        }
        let mut sums: Vec<Tensor> = Vec::with_capacity(self.depth);
        for depth in 0..self.depth {
            let of_depth: Vec<u32> = codes[depth..].iter().step_by(self.depth).copied().collect();
            let words = self.codewords(depth, &of_depth)?;
            sums.push(match sums.last() {
                Some(sum) => (sum + words)?,
                None => words,
            });
        }
        Ok(sums)
    }

    /// Sums of all codewords of places `[n·D]`, `[n,C]`.
    ///
    /// # Errors
    /// As [`Self::sums`].
    pub fn sum(&self, codes: &[u32]) -> Result<Tensor> {
        let sum = self.sums(codes)?.pop();
        sum.ok_or_else(|| Error::Shape("a quantizer without depths".into()))
    }

    /// Codes of vectors `[places,C]`.
    ///
    /// # Errors
    /// Another width, or vectors that are not finite.
    pub fn encode(&self, vectors: &Tensor) -> Result<Encoded> {
        self.encode_with(vectors, &mut |_| Ok(()))
    }

    /// As [`Self::encode`]; `see` is told of every depth.
    ///
    /// # Errors
    /// As [`Self::encode`], and what `see` reports.
    pub fn encode_with(
        &self,
        vectors: &Tensor,
        see: &mut dyn FnMut(&AtDepth) -> Result<()>,
    ) -> Result<Encoded> {
        let (places, _) = vectors.dims2()?;
        let mut codes = vec![0; places * self.depth];
        let (mut rest, mut sum) = (vectors.clone(), (vectors * 0.0)?);
        let mut residuals = Vec::with_capacity(self.depth);
        for depth in 0..self.depth {
            let found = self.codebook(depth).nearest(&rest)?;
            let words = self.codewords(depth, &found)?;
            sum = (sum + &words)?;
            see(&AtDepth {
                depth,
                wanted: &rest,
                codes: &found,
                sum: &sum,
            })?;
            rest = (rest - words)?;
            residuals.push(rest.sqr()?.sum_keepdim(1)?.flatten_all()?.to_vec1()?);
            for (place, code) in found.into_iter().enumerate() {
                codes[place * self.depth + depth] = code;
            }
        }
        Ok(Encoded {
            codes,
            sum,
            residuals,
        })
    }
}
