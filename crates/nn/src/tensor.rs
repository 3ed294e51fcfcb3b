//! The tensor that layers, models and pipelines pass around.

use crate::error::{Error, Result};
use brisk_store::{Dtype, TensorView};
use candle_core::shape::ShapeWithOneHole;
use candle_core::{
    CustomOp1, CustomOp2, CustomOp3, Device, Layout, NdArray, Storage, Tensor as HostTensor,
};
use std::fmt;
use std::ops::{Add, Deref, Div, Mul, Sub};

pub use candle_core::shape::Dim;
pub use candle_core::{D, DType, Shape, WithDType};

/// An array of numbers of one type. Cheap to clone: clones share their values.
///
/// It lies where its place says; operations give a tensor of the same place. On the host it is
/// candle's, so gradients of variables flow through everything here: [`Tensor::host`] and `From` go
/// from one to the other for free.
///
/// Unless a method says otherwise, its errors are dimensions that do not exist and shapes that do not
/// fit.
#[derive(Clone)]
pub struct Tensor(Place);

/// Where values lie.
#[derive(Clone)]
enum Place {
    /// In ordinary memory.
    Host(HostTensor),
}

impl From<HostTensor> for Tensor {
    fn from(tensor: HostTensor) -> Self {
        Self(Place::Host(tensor))
    }
}

impl From<&HostTensor> for Tensor {
    fn from(tensor: &HostTensor) -> Self {
        tensor.clone().into()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner().fmt(f)
    }
}

impl AsRef<Self> for Tensor {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Tensors that are made on the host.
impl Tensor {
    /// Takes over `values`, in the order of rows. One side of `shape` may be `()`: what is left.
    pub fn from_vec<T: WithDType>(values: Vec<T>, shape: impl ShapeWithOneHole) -> Result<Self> {
        Ok(HostTensor::from_vec(values, shape, &Device::Cpu)?.into())
    }

    /// As [`Tensor::from_vec`] of a copy.
    pub fn from_slice<T: WithDType>(values: &[T], shape: impl ShapeWithOneHole) -> Result<Self> {
        Ok(HostTensor::from_slice(values, shape, &Device::Cpu)?.into())
    }

    /// The values and the shape of a number or of arrays within arrays.
    pub fn new(array: impl NdArray) -> Result<Self> {
        Ok(HostTensor::new(array, &Device::Cpu)?.into())
    }

    /// `value` everywhere.
    pub fn full<T: WithDType>(value: T, shape: impl Into<Shape>) -> Result<Self> {
        Ok(HostTensor::full(value, shape, &Device::Cpu)?.into())
    }

    /// Zeros.
    pub fn zeros(shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        Ok(HostTensor::zeros(shape, dtype, &Device::Cpu)?.into())
    }

    /// Ones.
    pub fn ones(shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        Ok(HostTensor::ones(shape, dtype, &Device::Cpu)?.into())
    }

    /// A stored tensor in its own type; what is stored as true and false becomes bytes.
    ///
    /// # Errors
    /// A damaged view, or a type that no tensor has: bytes with a sign and floats of 8 bits.
    pub fn from_view(view: &TensorView) -> Result<Self> {
        view.elements()?;
        let dtype = match view.dtype {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I64 => DType::I64,
            Dtype::I32 => DType::I32,
            Dtype::I16 => DType::I16,
            Dtype::U8 | Dtype::Bool => DType::U8,
            other @ (Dtype::I8 | Dtype::F8E4M3) => {
                return Err(Error::Config(format!(
                    "a tensor cannot hold values of type {}; convert them to F32 or I64",
                    other.name()
                )));
            }
        };
        let tensor = HostTensor::from_raw_buffer(&view.data, dtype, &view.shape, &Device::Cpu)?;
        Ok(tensor.into())
    }
}

/// Shapes and types.
impl Tensor {
    /// Its shape.
    pub fn shape(&self) -> &Shape {
        self.inner().shape()
    }

    /// The sides of its shape.
    pub fn dims(&self) -> &[usize] {
        self.inner().dims()
    }

    /// One side.
    pub fn dim(&self, dim: impl Dim) -> Result<usize> {
        Ok(self.inner().dim(dim)?)
    }

    /// The sides of a matrix.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        Ok(self.inner().dims2()?)
    }

    /// The sides of a tensor of three dimensions.
    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        Ok(self.inner().dims3()?)
    }

    /// The sides of a tensor of four dimensions.
    pub fn dims4(&self) -> Result<(usize, usize, usize, usize)> {
        Ok(self.inner().dims4()?)
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.inner().rank()
    }

    /// Number of values.
    pub fn elem_count(&self) -> usize {
        self.inner().elem_count()
    }

    /// Type of the values.
    pub fn dtype(&self) -> DType {
        self.inner().dtype()
    }

    /// The values as another type.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        Ok(self.inner().to_dtype(dtype)?.into())
    }
}

/// Other arrangements of the same values.
impl Tensor {
    /// Values side by side in memory in the order of rows; itself where they are.
    pub fn contiguous(&self) -> Result<Self> {
        Ok(self.inner().contiguous()?.into())
    }

    /// Another shape of as many values. One side may be `()`: what is left.
    pub fn reshape(&self, shape: impl ShapeWithOneHole) -> Result<Self> {
        Ok(self.inner().reshape(shape)?.into())
    }

    /// One dimension.
    pub fn flatten_all(&self) -> Result<Self> {
        Ok(self.inner().flatten_all()?.into())
    }

    /// `length` indices of `dim` from `start`, without a copy.
    pub fn narrow(&self, dim: impl Dim, start: usize, length: usize) -> Result<Self> {
        Ok(self.inner().narrow(dim, start, length)?.into())
    }

    /// Without `dim`, where that is of size one.
    pub fn squeeze(&self, dim: impl Dim) -> Result<Self> {
        Ok(self.inner().squeeze(dim)?.into())
    }

    /// With a side of one before `dim`.
    pub fn unsqueeze(&self, dim: impl Dim) -> Result<Self> {
        Ok(self.inner().unsqueeze(dim)?.into())
    }

    /// Two dimensions exchanged, without a copy.
    pub fn transpose(&self, a: impl Dim, b: impl Dim) -> Result<Self> {
        Ok(self.inner().transpose(a, b)?.into())
    }

    /// Dimensions in another order, without a copy: new dimension `i` is old `order[i]`.
    pub fn permute(&self, order: impl candle_core::shape::Dims) -> Result<Self> {
        Ok(self.inner().permute(order)?.into())
    }

    /// Repeated along sides of one, without a copy.
    pub fn broadcast_as(&self, shape: impl Into<Shape>) -> Result<Self> {
        Ok(self.inner().broadcast_as(shape)?.into())
    }

    /// So many copies along every dimension.
    pub fn repeat(&self, times: impl Into<Shape>) -> Result<Self> {
        Ok(self.inner().repeat(times)?.into())
    }

    /// With rows of zeros before and behind along `dim`.
    pub fn pad_with_zeros(&self, dim: impl Dim, before: usize, behind: usize) -> Result<Self> {
        Ok(self.inner().pad_with_zeros(dim, before, behind)?.into())
    }

    /// The given indices (u32) of `dim`.
    pub fn index_select(&self, indices: &Self, dim: impl Dim) -> Result<Self> {
        Ok(self.inner().index_select(indices.inner(), dim)?.into())
    }

    /// `source` added at the given indices (u32) of `dim`.
    pub fn index_add(&self, indices: &Self, source: &Self, dim: impl Dim) -> Result<Self> {
        let (indices, source) = (indices.inner(), source.inner());
        Ok(self.inner().index_add(indices, source, dim)?.into())
    }

    /// Side by side along `dim`.
    pub fn cat(parts: &[impl AsRef<Self>], dim: impl Dim) -> Result<Self> {
        let parts: Vec<&HostTensor> = parts.iter().map(|part| part.as_ref().inner()).collect();
        Ok(HostTensor::cat(&parts, dim)?.into())
    }

    /// Overwrites its own values along `dim` from index `start` with those of `source`; clones see it.
    ///
    /// # Errors
    /// Also where one of the two is not contiguous or they share their memory.
    pub fn slice_set(&self, source: &Self, dim: impl Dim, start: usize) -> Result<()> {
        Ok(self.inner().slice_set(source.inner(), dim, start)?)
    }
}

/// Arithmetic. Two operands have one shape unless the method broadcasts.
impl Tensor {
    /// `x·factor + addend`.
    pub fn affine(&self, factor: f64, addend: f64) -> Result<Self> {
        Ok(self.inner().affine(factor, addend)?.into())
    }

    /// The sum, sides of one repeated.
    pub fn broadcast_add(&self, other: &Self) -> Result<Self> {
        Ok(self.inner().broadcast_add(other.inner())?.into())
    }

    /// The product, sides of one repeated.
    pub fn broadcast_mul(&self, other: &Self) -> Result<Self> {
        Ok(self.inner().broadcast_mul(other.inner())?.into())
    }

    /// The difference, sides of one repeated.
    pub fn broadcast_sub(&self, other: &Self) -> Result<Self> {
        Ok(self.inner().broadcast_sub(other.inner())?.into())
    }

    /// The quotient, sides of one repeated.
    pub fn broadcast_div(&self, other: &Self) -> Result<Self> {
        Ok(self.inner().broadcast_div(other.inner())?.into())
    }

    /// The product of matrices in the last two dimensions.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        Ok(self.inner().matmul(other.inner())?.into())
    }

    /// Limited to `low..=high`.
    pub fn clamp(&self, low: f32, high: f32) -> Result<Self> {
        Ok(self.inner().clamp(low, high)?.into())
    }

    /// The square of every value.
    pub fn sqr(&self) -> Result<Self> {
        Ok(self.inner().sqr()?.into())
    }

    /// The square root of every value.
    pub fn sqrt(&self) -> Result<Self> {
        Ok(self.inner().sqrt()?.into())
    }

    /// Every value without its sign.
    pub fn abs(&self) -> Result<Self> {
        Ok(self.inner().abs()?.into())
    }

    /// The mean along `dim`, which goes.
    pub fn mean(&self, dim: impl Dim) -> Result<Self> {
        let dim = dim.to_index(self.shape(), "mean")?;
        Ok(self.inner().mean(dim)?.into())
    }

    /// The mean along `dim`, of which a side of one stays.
    pub fn mean_keepdim(&self, dim: impl Dim) -> Result<Self> {
        let dim = dim.to_index(self.shape(), "mean")?;
        Ok(self.inner().mean_keepdim(dim)?.into())
    }

    /// The sum along `dim`, of which a side of one stays.
    pub fn sum_keepdim(&self, dim: impl Dim) -> Result<Self> {
        let dim = dim.to_index(self.shape(), "sum")?;
        Ok(self.inner().sum_keepdim(dim)?.into())
    }

    /// The largest along `dim`, of which a side of one stays.
    pub fn max_keepdim(&self, dim: impl Dim) -> Result<Self> {
        Ok(self.inner().max_keepdim(dim)?.into())
    }

    /// The exponential of every value.
    pub fn exp(&self) -> Result<Self> {
        Ok(self.inner().exp()?.into())
    }

    /// The mean of all values, without dimensions.
    pub fn mean_all(&self) -> Result<Self> {
        Ok(self.inner().mean_all()?.into())
    }

    /// The sum of all values, without dimensions.
    pub fn sum_all(&self) -> Result<Self> {
        Ok(self.inner().sum_all()?.into())
    }

    /// The largest of all values, without dimensions.
    pub fn max_all(&self) -> Result<Self> {
        Ok(self.inner().max_all()?.into())
    }
}

/// Values on the host.
impl Tensor {
    /// Candle's tensor, with its gradients.
    ///
    /// # Errors
    /// Values that cannot be brought to the host.
    pub fn host(&self) -> Result<HostTensor> {
        Ok(self.inner().clone())
    }

    /// The value of a tensor without dimensions.
    pub fn to_scalar<T: WithDType>(&self) -> Result<T> {
        Ok(self.inner().to_scalar()?)
    }

    /// The values of a tensor of one dimension.
    pub fn to_vec1<T: WithDType>(&self) -> Result<Vec<T>> {
        Ok(self.inner().to_vec1()?)
    }

    /// The rows of a matrix.
    pub fn to_vec2<T: WithDType>(&self) -> Result<Vec<Vec<T>>> {
        Ok(self.inner().to_vec2()?)
    }

    /// The matrices of a tensor of three dimensions.
    pub fn to_vec3<T: WithDType>(&self) -> Result<Vec<Vec<Vec<T>>>> {
        Ok(self.inner().to_vec3()?)
    }
}

/// Gradients.
impl Tensor {
    /// Whether a gradient could flow through it to a variable.
    pub fn track_op(&self) -> bool {
        self.inner().track_op()
    }

    /// The same values, where no gradient flows on.
    pub fn detach(&self) -> Self {
        self.inner().detach().into()
    }
}

/// What [`crate::ops`] builds on.
impl Tensor {
    pub(crate) fn inner(&self) -> &HostTensor {
        let Place::Host(tensor) = &self.0;
        tensor
    }

    pub(crate) fn storage_and_layout(&self) -> (impl Deref<Target = Storage>, &Layout) {
        self.inner().storage_and_layout()
    }

    pub(crate) fn apply_op1(&self, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Self> {
        Ok(self.inner().apply_op1(op)?.into())
    }

    pub(crate) fn apply_op2(
        &self,
        second: &Self,
        op: impl CustomOp2 + Send + Sync + 'static,
    ) -> Result<Self> {
        Ok(self.inner().apply_op2(second.inner(), op)?.into())
    }

    pub(crate) fn apply_op3(
        &self,
        second: &Self,
        third: &Self,
        op: impl CustomOp3 + Send + Sync + 'static,
    ) -> Result<Self> {
        let (second, third) = (second.inner(), third.inner());
        Ok(self.inner().apply_op3(second, third, op)?.into())
    }
}

/// Both operands by value or by reference, and a number as the second one.
macro_rules! arithmetic {
    ($($trait:ident $method:ident $operator:tt),+) => {$(
        arithmetic!(@ $trait $method $operator, Tensor, Tensor);
        arithmetic!(@ $trait $method $operator, Tensor, &Tensor);
        arithmetic!(@ $trait $method $operator, &Tensor, Tensor);
        arithmetic!(@ $trait $method $operator, &Tensor, &Tensor);

        impl $trait<f64> for &Tensor {
            type Output = Result<Tensor>;

            fn $method(self, number: f64) -> Result<Tensor> {
                Ok((self.inner() $operator number)?.into())
            }
        }

        impl $trait<f64> for Tensor {
            type Output = Result<Tensor>;

            fn $method(self, number: f64) -> Result<Tensor> {
                &self $operator number
            }
        }
    )+};
    (@ $trait:ident $method:ident $operator:tt, $left:ty, $right:ty) => {
        impl $trait<$right> for $left {
            type Output = Result<Tensor>;

            fn $method(self, other: $right) -> Result<Tensor> {
                Ok((self.inner() $operator other.inner())?.into())
            }
        }
    };
}

arithmetic!(Add add +, Sub sub -, Mul mul *, Div div /);

/// A variable, for tests of gradients.
#[cfg(test)]
pub(crate) fn variable(values: Vec<f32>, shape: &[usize]) -> Tensor {
    let variable = candle_core::Var::from_vec(values, shape, &Device::Cpu).expect("as many values");
    variable.as_tensor().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_flow_through_it() {
        let x = variable(vec![1.0, -2.0, 3.0], &[3]);
        assert!(x.track_op() && !x.detach().track_op());
        let y = ((&x * &x).unwrap() * 0.5).unwrap().sum_all().unwrap();
        let gradients = y.host().unwrap().backward().unwrap();
        let gradient = gradients.get(x.inner()).unwrap();
        assert_eq!(gradient.to_vec1::<f32>().unwrap(), [1.0, -2.0, 3.0]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let a = Tensor::ones((2, 3), DType::F32).unwrap();
        let b = Tensor::ones((3, 2), DType::F32).unwrap();
        assert!((&a + &b).is_err() && a.reshape((4, 2)).is_err() && a.narrow(0, 1, 2).is_err());
        assert_eq!(a.reshape((3, ())).unwrap().dims(), [3, 2]);
        assert_eq!(Tensor::cat(&[&a, &a], D::Minus1).unwrap().dims(), [2, 6]);
    }
}
