//! `+`, `-`, `*` and `/`.

use brisk_cuda::ops::Binary;
use std::ops::{Add, Div, Mul, Sub};

use super::{Place, Tensor, dual, either, side_by_side};
use crate::error::Result;

/// Both operands by value or by reference, and a number as the second one.
macro_rules! arithmetic {
    ($($trait:ident $method:ident $operator:tt $binary:ident $number:expr),+) => {$(
        arithmetic!(@ $trait $method $operator $binary, Tensor, Tensor);
        arithmetic!(@ $trait $method $operator $binary, Tensor, &Tensor);
        arithmetic!(@ $trait $method $operator $binary, &Tensor, Tensor);
        arithmetic!(@ $trait $method $operator $binary, &Tensor, &Tensor);

        impl $trait<f64> for &Tensor {
            type Output = Result<Tensor>;

            fn $method(self, number: f64) -> Result<Tensor> {
                let line: fn(f64) -> (f64, f64) = $number;
                let (factor, addend) = line(number);
                if let Place::Dual(x) = &self.0 {
                    return x.affine(factor, addend);
                }
                either!(self, x => x $operator number, x => x.affine(factor, addend))
            }
        }

        impl $trait<f64> for Tensor {
            type Output = Result<Tensor>;

            fn $method(self, number: f64) -> Result<Tensor> {
                &self $operator number
            }
        }
    )+};
    (@ $trait:ident $method:ident $operator:tt $binary:ident, $left:ty, $right:ty) => {
        impl $trait<$right> for $left {
            type Output = Result<Tensor>;

            fn $method(self, other: $right) -> Result<Tensor> {
                match (self.place()?, &other.0) {
                    (Place::Host(a), Place::Host(b)) => {
                        let (a, b) = side_by_side(a, b)?;
                        Ok((&*a $operator &*b)?.into())
                    }
                    (Place::Device(a), Place::Device(b)) if a.shape() == b.shape() => {
                        Ok(a.arithmetic(Binary::$binary, b)?.into())
                    }
                    _ => dual::arithmetic(Binary::$binary, &self, &other, false)
                        .unwrap_or_else(|| Err(self.apart(&other, stringify!($method)))),
                }
            }
        }
    };
}

arithmetic!(
    Add add + Add |number| (1.0, number),
    Sub sub - Subtract |number| (1.0, -number),
    Mul mul * Multiply |number| (number, 0.0),
    Div div / Divide |number| (1.0 / number, 0.0)
);
