//! The tensor that layers, models and pipelines pass around.

mod accelerator;
mod dual;
mod location;
mod on_device;
mod operands;
mod operators;

use crate::error::{Error, Result};
use brisk_cuda::ops::Binary;
use brisk_store::{Dtype, TensorView};
use candle_core::shape::{Dims, ShapeWithOneHole};
use candle_core::{Device, NdArray, Tensor as HostTensor};
use std::fmt;
use std::sync::Arc;

pub(crate) use accelerator::{meeting_place, moved, side_by_side};
pub use accelerator::{train_on_card, training_device};
pub use candle_core::shape::Dim;
pub use candle_core::{D, DType, Shape, WithDType};
pub use location::Location;
pub(crate) use on_device::OnDevice;

/// An array of numbers of one type. Cheap to clone: clones share their values.
///
/// It lies where its place says; operations give a tensor of the same place, and operands of two places are
/// an error ([`Tensor::to`] moves them). On the host it is candle's, so gradients of variables flow through
/// everything here: [`Tensor::host`] and `From` go from one to the other for free. On a card there are no
/// gradients, and what a card cannot do is an error that names it.
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
    /// In a card's.
    Device(Arc<OnDevice>),
    /// In ordinary memory, with a tangent.
    Dual(Arc<dual::Dual>),
}

/// What is done on the host, or on a card: a linear map, as a tangent goes the same way.
macro_rules! either {
    ($self:expr, $host:ident => $on_host:expr, $device:ident => $on_device:expr) => {
        match $self.place()? {
            Place::Host($host) => Ok(($on_host)?.into()),
            Place::Device($device) => Ok(Tensor::from($on_device?)),
            Place::Dual(dual) => dual.map(|$host| $on_host),
        }
    };
}

use either;

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
        match &self.0 {
            Place::Host(tensor) => tensor.fmt(f),
            Place::Device(tensor) => tensor.fmt(f),
            Place::Dual(dual) => dual.fmt(f),
        }
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
        match &self.0 {
            Place::Host(tensor) => tensor.shape(),
            Place::Device(tensor) => tensor.shape(),
            Place::Dual(dual) => dual.value.shape(),
        }
    }

    /// The sides of its shape.
    pub fn dims(&self) -> &[usize] {
        self.shape().dims()
    }

    /// One side.
    pub fn dim(&self, dim: impl Dim) -> Result<usize> {
        let at = dim.to_index(self.shape(), "dim")?;
        Ok(self.dims()[at])
    }

    /// The sides of a matrix.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        Ok(self.shape().dims2()?)
    }

    /// The sides of a tensor of three dimensions.
    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        Ok(self.shape().dims3()?)
    }

    /// The sides of a tensor of four dimensions.
    pub fn dims4(&self) -> Result<(usize, usize, usize, usize)> {
        Ok(self.shape().dims4()?)
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape().rank()
    }

    /// Number of values.
    pub fn elem_count(&self) -> usize {
        self.shape().elem_count()
    }

    /// Type of the values.
    pub fn dtype(&self) -> DType {
        match &self.0 {
            Place::Host(tensor) => tensor.dtype(),
            Place::Device(tensor) => tensor.dtype(),
            Place::Dual(dual) => dual.value.dtype(),
        }
    }

    /// The values as another type.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        either!(self, x => x.to_dtype(dtype), x => x.to_dtype(dtype))
    }
}

/// Other arrangements of the same values.
impl Tensor {
    /// Values side by side in memory in the order of rows; itself where they are.
    pub fn contiguous(&self) -> Result<Self> {
        either!(self, x => x.contiguous(), x => Ok::<_, Error>(OnDevice::clone(x)))
    }

    /// Another shape of as many values. One side may be `()`: what is left.
    pub fn reshape(&self, shape: impl ShapeWithOneHole) -> Result<Self> {
        let shape = shape.into_shape(self.elem_count())?;
        either!(self, x => x.reshape(&shape), x => x.reshape(&shape))
    }

    /// One dimension.
    pub fn flatten_all(&self) -> Result<Self> {
        either!(self, x => x.flatten_all(), x => x.reshape(&self.elem_count().into()))
    }

    /// `length` indices of `dim` from `start`, without a copy.
    pub fn narrow(&self, dim: impl Dim, start: usize, length: usize) -> Result<Self> {
        let dim = dim.to_index(self.shape(), "narrow")?;
        either!(self, x => x.narrow(dim, start, length), x => x.narrow(dim, start, length))
    }

    /// Without `dim`, where that is of size one.
    pub fn squeeze(&self, dim: impl Dim) -> Result<Self> {
        let dim = dim.to_index(self.shape(), "squeeze")?;
        either!(self, x => x.squeeze(dim), x => x.squeeze(dim))
    }

    /// With a side of one before `dim`.
    pub fn unsqueeze(&self, dim: impl Dim) -> Result<Self> {
        let dim = dim.to_index_plus_one(self.shape(), "unsqueeze")?;
        either!(self, x => x.unsqueeze(dim), x => x.unsqueeze(dim))
    }

    /// Two dimensions exchanged, without a copy.
    pub fn transpose(&self, a: impl Dim, b: impl Dim) -> Result<Self> {
        let (a, b) = (
            a.to_index(self.shape(), "transpose")?,
            b.to_index(self.shape(), "transpose")?,
        );
        either!(self, x => x.transpose(a, b), x => x.transpose(a, b))
    }

    /// Dimensions in another order, without a copy: new dimension `i` is old `order[i]`.
    pub fn permute(&self, order: impl Dims) -> Result<Self> {
        let order = order.to_indexes(self.shape(), "permute")?;
        either!(self, x => x.permute(order.as_slice()), x => x.permute(&order))
    }

    /// Repeated along sides of one, without a copy.
    pub fn broadcast_as(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        either!(self, x => x.broadcast_as(&shape), x => x.broadcast_as(&shape))
    }

    /// So many copies along every dimension.
    pub fn repeat(&self, times: impl Into<Shape>) -> Result<Self> {
        Ok(self.on_host("repeat")?.repeat(times)?.into())
    }

    /// With rows of zeros before and behind along `dim`.
    pub fn pad_with_zeros(&self, dim: impl Dim, before: usize, behind: usize) -> Result<Self> {
        let dim = dim.to_index(self.shape(), "pad_with_zeros")?;
        either!(self, x => x.pad_with_zeros(dim, before, behind), x => x.pad_with_zeros(dim, before, behind))
    }

    /// The given indices (u32) of `dim`.
    pub fn index_select(&self, indices: &Self, dim: impl Dim) -> Result<Self> {
        let dim = dim.to_index(self.shape(), "index_select")?;
        match (self.place()?, &indices.0) {
            (Place::Host(x), Place::Host(indices)) => {
                let indices = moved(indices, x.device())?;
                Ok(x.index_select(&indices, dim)?.into())
            }
            (Place::Device(x), _) => Ok(x.index_select(indices, dim)?.into()),
            (Place::Dual(x), Place::Host(indices)) => x.map(|x| x.index_select(indices, dim)),
            (Place::Host(_) | Place::Dual(_), _) => Err(self.apart(indices, "index_select")),
        }
    }

    /// `source` added at the given indices (u32) of `dim`.
    pub fn index_add(&self, indices: &Self, source: &Self, dim: impl Dim) -> Result<Self> {
        let name = "index_add";
        let (indices, source) = (indices.on_host(name)?, source.on_host(name)?);
        let x = self.on_host(name)?;
        let device = meeting_place([x, source]);
        let (x, indices) = (moved(x, &device)?, moved(indices, &device)?);
        Ok(x.index_add(&indices, &*moved(source, &device)?, dim)?
            .into())
    }

    /// Side by side along `dim`.
    pub fn cat(parts: &[impl AsRef<Self>], dim: impl Dim) -> Result<Self> {
        let parts: Vec<&Self> = parts.iter().map(AsRef::as_ref).collect();
        if let Some(first) = parts
            .first()
            .filter(|_| parts.iter().any(|x| x.has_tangent()))
        {
            return dual::cat(&parts, dim.to_index(first.shape(), "cat")?);
        }
        if let Some(Place::Device(_)) = parts.first().map(|part| &part.0) {
            let dim = dim.to_index(parts[0].shape(), "cat")?;
            let parts = parts
                .iter()
                .map(|part| part.on_device("cat"))
                .collect::<Result<Vec<_>>>()?;
            return Ok(OnDevice::cat(&parts, dim)?.into());
        }
        let parts = parts
            .iter()
            .map(|part| part.on_host("cat"))
            .collect::<Result<Vec<_>>>()?;
        let device = meeting_place(parts.iter().copied());
        let parts = parts
            .into_iter()
            .map(|part| moved(part, &device))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let parts: Vec<&HostTensor> = parts.iter().map(|part| &**part).collect();
        Ok(HostTensor::cat(&parts, dim)?.into())
    }

    /// Overwrites its own values along `dim` from index `start` with those of `source`; clones see it.
    ///
    /// # Errors
    /// Also where one of the two is not contiguous or they share their memory.
    pub fn slice_set(&self, source: &Self, dim: impl Dim, start: usize) -> Result<()> {
        let dim = dim.to_index(self.shape(), "slice_set")?;
        match (self.place()?, &source.0) {
            (Place::Host(x), Place::Host(source)) => {
                Ok(x.slice_set(&*moved(source, x.device())?, dim, start)?)
            }
            (Place::Device(x), Place::Device(source)) => x.slice_set(source, dim, start),
            _ => Err(self.apart(source, "slice_set")),
        }
    }
}

/// Arithmetic. Two operands have one shape unless the method broadcasts.
impl Tensor {
    /// `x·factor + addend`.
    pub fn affine(&self, factor: f64, addend: f64) -> Result<Self> {
        if let Place::Dual(x) = self.place()? {
            return x.affine(factor, addend);
        }
        either!(self, x => x.affine(factor, addend), x => x.affine(factor, addend))
    }

    /// The sum, sides of one repeated.
    pub fn broadcast_add(&self, other: &Self) -> Result<Self> {
        match (self.place()?, &other.0) {
            (Place::Host(a), Place::Host(b)) => {
                let (a, b) = side_by_side(a, b)?;
                Ok(a.broadcast_add(&b)?.into())
            }
            (Place::Device(a), Place::Device(b)) => Ok(a.arithmetic(Binary::Add, b)?.into()),
            _ => dual::arithmetic(Binary::Add, self, other, true)
                .unwrap_or_else(|| Err(self.apart(other, "broadcast_add"))),
        }
    }

    /// The product, sides of one repeated.
    pub fn broadcast_mul(&self, other: &Self) -> Result<Self> {
        match (self.place()?, &other.0) {
            (Place::Host(a), Place::Host(b)) => {
                let (a, b) = side_by_side(a, b)?;
                Ok(a.broadcast_mul(&b)?.into())
            }
            (Place::Device(a), Place::Device(b)) => Ok(a.arithmetic(Binary::Multiply, b)?.into()),
            _ => dual::arithmetic(Binary::Multiply, self, other, true)
                .unwrap_or_else(|| Err(self.apart(other, "broadcast_mul"))),
        }
    }

    /// The difference, sides of one repeated.
    pub fn broadcast_sub(&self, other: &Self) -> Result<Self> {
        match (self.place()?, &other.0) {
            (Place::Host(a), Place::Host(b)) => {
                let (a, b) = side_by_side(a, b)?;
                Ok(a.broadcast_sub(&b)?.into())
            }
            (Place::Device(a), Place::Device(b)) => Ok(a.arithmetic(Binary::Subtract, b)?.into()),
            _ => dual::arithmetic(Binary::Subtract, self, other, true)
                .unwrap_or_else(|| Err(self.apart(other, "broadcast_sub"))),
        }
    }

    /// The quotient, sides of one repeated.
    pub fn broadcast_div(&self, other: &Self) -> Result<Self> {
        match (self.place()?, &other.0) {
            (Place::Host(a), Place::Host(b)) => {
                let (a, b) = side_by_side(a, b)?;
                Ok(a.broadcast_div(&b)?.into())
            }
            (Place::Device(a), Place::Device(b)) => Ok(a.arithmetic(Binary::Divide, b)?.into()),
            _ => dual::arithmetic(Binary::Divide, self, other, true)
                .unwrap_or_else(|| Err(self.apart(other, "broadcast_div"))),
        }
    }

    /// The product of matrices in the last two dimensions.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        let (a, b) = side_by_side(self.on_host("matmul")?, other.on_host("matmul")?)?;
        Ok(a.matmul(&b)?.into())
    }

    /// Limited to `low..=high`.
    pub fn clamp(&self, low: f32, high: f32) -> Result<Self> {
        Ok(self.on_host("clamp")?.clamp(low, high)?.into())
    }

    /// The square of every value.
    pub fn sqr(&self) -> Result<Self> {
        Ok(self.on_host("sqr")?.sqr()?.into())
    }

    /// The square root of every value.
    pub fn sqrt(&self) -> Result<Self> {
        Ok(self.on_host("sqrt")?.sqrt()?.into())
    }

    /// Every value without its sign.
    pub fn abs(&self) -> Result<Self> {
        Ok(self.on_host("abs")?.abs()?.into())
    }

    /// The mean along `dim`, which goes.
    pub fn mean(&self, dim: impl Dim) -> Result<Self> {
        let dim = dim.to_index(self.shape(), "mean")?;
        Ok(self.on_host("mean")?.mean(dim)?.into())
    }

    /// The mean along `dim`, of which a side of one stays.
    pub fn mean_keepdim(&self, dim: impl Dim) -> Result<Self> {
        let dim = dim.to_index(self.shape(), "mean")?;
        Ok(self.on_host("mean_keepdim")?.mean_keepdim(dim)?.into())
    }

    /// The sum along `dim`, of which a side of one stays.
    pub fn sum_keepdim(&self, dim: impl Dim) -> Result<Self> {
        let dim = dim.to_index(self.shape(), "sum")?;
        Ok(self.on_host("sum_keepdim")?.sum_keepdim(dim)?.into())
    }

    /// The largest along `dim`, of which a side of one stays.
    pub fn max_keepdim(&self, dim: impl Dim) -> Result<Self> {
        Ok(self.on_host("max_keepdim")?.max_keepdim(dim)?.into())
    }

    /// The exponential of every value.
    pub fn exp(&self) -> Result<Self> {
        Ok(self.on_host("exp")?.exp()?.into())
    }

    /// The mean of all values, without dimensions.
    pub fn mean_all(&self) -> Result<Self> {
        Ok(self.on_host("mean_all")?.mean_all()?.into())
    }

    /// The sum of all values, without dimensions.
    pub fn sum_all(&self) -> Result<Self> {
        Ok(self.on_host("sum_all")?.sum_all()?.into())
    }

    /// The largest of all values, without dimensions.
    pub fn max_all(&self) -> Result<Self> {
        Ok(self.on_host("max_all")?.max_all()?.into())
    }
}

/// Values on the host.
impl Tensor {
    /// Candle's tensor, with its gradients.
    ///
    /// # Errors
    /// Values that cannot be brought to the host.
    pub fn host(&self) -> Result<HostTensor> {
        match &self.0 {
            Place::Host(tensor) => Ok(tensor.clone()),
            Place::Device(tensor) => tensor.host(),
            Place::Dual(_) => Err(dual::without_rule("reading the values")),
        }
    }

    /// The value of a tensor without dimensions.
    pub fn to_scalar<T: WithDType>(&self) -> Result<T> {
        Ok(self.host()?.to_scalar()?)
    }

    /// The values of a tensor of one dimension.
    pub fn to_vec1<T: WithDType>(&self) -> Result<Vec<T>> {
        Ok(self.host()?.to_vec1()?)
    }

    /// The rows of a matrix.
    pub fn to_vec2<T: WithDType>(&self) -> Result<Vec<Vec<T>>> {
        Ok(self.host()?.to_vec2()?)
    }

    /// The matrices of a tensor of three dimensions.
    pub fn to_vec3<T: WithDType>(&self) -> Result<Vec<Vec<Vec<T>>>> {
        Ok(self.host()?.to_vec3()?)
    }
}

/// Gradients.
impl Tensor {
    /// Whether a gradient could flow through it to a variable.
    pub fn track_op(&self) -> bool {
        matches!(&self.0, Place::Host(tensor) if tensor.track_op())
    }

    /// The same values, where no gradient flows on.
    pub fn detach(&self) -> Self {
        match &self.0 {
            Place::Host(tensor) => tensor.detach().into(),
            Place::Device(_) | Place::Dual(_) => self.clone(),
        }
    }
}

impl From<OnDevice> for Tensor {
    fn from(tensor: OnDevice) -> Self {
        Self(Place::Device(Arc::new(tensor)))
    }
}

/// A variable, for tests of gradients.
#[cfg(test)]
pub(crate) fn variable(values: Vec<f32>, shape: &[usize]) -> Tensor {
    let variable = candle_core::Var::from_vec(values, shape, &Device::Cpu).expect("as many values");
    variable.as_tensor().into()
}

#[cfg(test)]
mod tests;
