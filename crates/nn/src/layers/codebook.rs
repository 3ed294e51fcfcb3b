//! Vector quantization: the nearest of a table's vectors.

use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::{D, Tensor};
use crate::weights::{Init, Weights};

/// Products that are held at once.
const PRODUCTS: usize = 1 << 24;

/// A table of codewords `[count, width]`.
#[derive(Clone, Debug)]
pub struct Codebook {
    table: Tensor,
    count: usize,
}

impl Codebook {
    /// Reads `weight` `[count, width]`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(weights: &Weights, count: usize, width: usize) -> Result<Self> {
        Self::new(weights.get("weight", &[count, width], Init::Normal(1.0))?)
    }

    /// From a table at hand, `[count, width]`.
    ///
    /// # Errors
    /// A tensor of another shape, or without a codeword.
    pub fn new(table: Tensor) -> Result<Self> {
        let (count, _) = table.dims2()?;
        if count == 0 {
            return Err(Error::Shape("a codebook without a codeword".into()));
        }
        Ok(Self { table, count })
    }

    /// Number of codewords.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Half the squared length of every codeword, of the table as it is now: training changes it.
    fn halves(&self) -> Result<Vec<f32>> {
        let table = self.table.detach();
        let (_, width) = table.dims2()?;
        let halves = (table.sqr()?.mean(D::Minus1)? * (width as f64 / 2.0))?;
        halves.to_vec1()
    }

    /// The codewords of `codes`, `[codes, width]`.
    ///
    /// # Errors
    /// A code that is no row of the table.
    pub fn lookup(&self, codes: &[u32]) -> Result<Tensor> {
        if let Some(code) = codes.iter().find(|code| **code as usize >= self.count()) {
            return Err(Error::Shape(format!(
                "code {code} is outside the codebook of {}",
                self.count()
            )));
        }
        let places = Tensor::from_slice(codes, codes.len())?;
        self.table.index_select(&places, 0)
    }

    /// Mixtures of all codewords, `[rows, width]`, by `shares` `[rows, count]`.
    ///
    /// # Errors
    /// Another number of shares.
    pub fn mix(&self, shares: &Tensor) -> Result<Tensor> {
        ops::linear(shares, &self.table.transpose(0, 1)?, None)
    }

    /// For every row of `x` `[rows, width]` the codeword at the smallest Euclidean distance; of several at
    /// one distance, the first. Compared is |c|²/2 − x·c in f32; products are made for some rows at a
    /// time. No gradient flows through the choice.
    ///
    /// # Errors
    /// Another width, or a row that holds NaN.
    pub fn nearest(&self, x: &Tensor) -> Result<Vec<u32>> {
        let (rows, _) = x.dims2()?;
        let (x, table, halves) = (x.detach(), self.table.detach(), self.halves()?);
        let most = (PRODUCTS / self.count()).max(1);
        let mut codes = Vec::with_capacity(rows);
        for start in (0..rows).step_by(most) {
            let some = x.narrow(0, start, most.min(rows - start))?;
            let products = ops::linear(&some, &table, None)?;
            for products in products
                .flatten_all()?
                .to_vec1::<f32>()?
                .chunks(self.count())
            {
                let distances = halves.iter().zip(products).map(|(half, p)| half - p);
                let mut best = (0, f32::INFINITY);
                for (code, distance) in distances.enumerate() {
                    if distance.is_nan() {
                        let row = codes.len();
                        return Err(Error::Shape(format!(
                            "row {row} to quantize holds values that are not finite"
                        )));
                    }
                    if distance < best.1 {
                        best = (code as u32, distance);
                    }
                }
                codes.push(best.0);
            }
        }
        Ok(codes)
    }
}
