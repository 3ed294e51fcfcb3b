//! Arrays on a device.

use std::fmt;
use std::sync::Arc;

use half::bf16;

use crate::device::{Buffer, Device};
use crate::driver::Structure;
use crate::error::{Error, Result};

/// Type of a tensor's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// The upper half of those.
    Bf16,
    /// Indices.
    U32,
    /// Bytes, as codes lie in.
    U8,
}

impl Element {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }

    /// Whether values are floats.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::Bf16)
    }
}

/// An array on a device, its values side by side in the order of rows. Cheap to clone: clones share
/// their values, as parts do.
#[derive(Clone)]
pub struct Tensor {
    buffer: Arc<Buffer>,
    /// Bytes of the buffer before the first value.
    before: usize,
    dims: Vec<usize>,
    element: Element,
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let card = &self.device().card().name;
        write!(f, "Tensor({:?}, {:?}, {card})", self.dims, self.element)
    }
}

/// Number of values of a shape.
///
/// # Errors
/// More than memory addresses.
pub(crate) fn count(dims: &[usize]) -> Result<usize> {
    let sides = dims.iter();
    sides
        .copied()
        .try_fold(1usize, usize::checked_mul)
        .filter(|count| *count < 1 << 46)
        .ok_or_else(|| Error::Shape(format!("a tensor of shape {dims:?} is too large")))
}

impl Device {
    /// Values that are not set.
    ///
    /// # Errors
    /// Memory that ran out.
    pub fn unset(&self, dims: &[usize], element: Element) -> Result<Tensor> {
        let buffer = self.buffer(count(dims)? * element.bytes())?;
        Ok(Tensor {
            buffer: Arc::new(buffer),
            before: 0,
            dims: dims.to_vec(),
            element,
        })
    }

    /// Zeros.
    ///
    /// # Errors
    /// Memory that ran out.
    pub fn zeros(&self, dims: &[usize], element: Element) -> Result<Tensor> {
        let tensor = self.unset(dims, element)?;
        if tensor.count() > 0 {
            // SAFETY: the buffer has so many bytes.
            unsafe {
                self.driver()
                    .clear(tensor.address(), tensor.count() * element.bytes())?
            };
        }
        Ok(tensor)
    }

    /// `values` in the order of rows.
    ///
    /// # Errors
    /// Memory that ran out, or another number of values than `dims` says.
    pub fn upload(&self, values: &[f32], dims: &[usize]) -> Result<Tensor> {
        self.upload_as(values, dims, Element::F32)
    }

    /// As [`Device::upload`], of bf16.
    ///
    /// # Errors
    /// As [`Device::upload`].
    pub fn upload_bf16(&self, values: &[bf16], dims: &[usize]) -> Result<Tensor> {
        self.upload_as(values, dims, Element::Bf16)
    }

    /// As [`Device::upload`], of indices.
    ///
    /// # Errors
    /// As [`Device::upload`].
    pub fn upload_u32(&self, values: &[u32], dims: &[usize]) -> Result<Tensor> {
        self.upload_as(values, dims, Element::U32)
    }

    /// As [`Device::upload`], of bytes.
    ///
    /// # Errors
    /// As [`Device::upload`].
    pub fn upload_bytes(&self, bytes: &[u8], dims: &[usize]) -> Result<Tensor> {
        if bytes.len() != count(dims)? {
            let expected = format!("as many as the {} bytes", bytes.len());
            return Err(Error::shape("upload", dims, &expected));
        }
        let tensor = self.unset(dims, Element::U8)?;
        if !bytes.is_empty() {
            // SAFETY: the buffer has so many bytes.
            unsafe { self.driver().upload(tensor.address(), bytes)? };
        }
        Ok(tensor)
    }

    fn upload_as<T: Copy>(&self, values: &[T], dims: &[usize], element: Element) -> Result<Tensor> {
        if values.len() != count(dims)? {
            let expected = format!("as many as the {} values", values.len());
            return Err(Error::shape("upload", dims, &expected));
        }
        let tensor = self.unset(dims, element)?;
        if !values.is_empty() {
            // SAFETY: floats and indices are all bytes, in the order of every machine that has a card.
            let bytes = unsafe {
                std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
            };
            // SAFETY: the buffer has so many bytes.
            unsafe { self.driver().upload(tensor.address(), bytes)? };
        }
        Ok(tensor)
    }
}

impl Tensor {
    /// Where it lies.
    pub fn device(&self) -> &Device {
        self.buffer.device()
    }

    /// The sides of its shape.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// Type of the values.
    pub fn element(&self) -> Element {
        self.element
    }

    /// The last side; 1 of a single value.
    pub fn width(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// How often the last side comes.
    pub fn rows(&self) -> usize {
        self.dims[..self.dims.len().saturating_sub(1)]
            .iter()
            .product()
    }

    /// Another shape of as many values, which are shared.
    ///
    /// # Errors
    /// Another number of values.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        if count(dims)? != self.count() {
            let expected = format!("as many values as {dims:?}");
            return Err(Error::shape("reshape", &self.dims, &expected));
        }
        Ok(Self {
            dims: dims.to_vec(),
            ..self.clone()
        })
    }

    /// The values from the one at `first` on as a tensor of their own, which shares them.
    pub(crate) fn part(&self, first: usize, dims: &[usize]) -> Result<Self> {
        if first + count(dims)? > self.count() {
            let expected = format!("{dims:?} from value {first} on");
            return Err(Error::shape("part", &self.dims, &expected));
        }
        Ok(Self {
            before: self.before + first * self.element.bytes(),
            dims: dims.to_vec(),
            ..self.clone()
        })
    }

    /// Whether two share their values.
    pub fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.buffer, &other.buffer)
    }

    /// The values on the host, bf16 widened, once all that is queued has run.
    ///
    /// # Errors
    /// Faults of kernels; indices.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let bytes = self.download()?;
        match self.element {
            Element::F32 => Ok(from_bytes(&bytes, f32::from_le_bytes)),
            Element::Bf16 => Ok(from_bytes(&bytes, |b| bf16::from_le_bytes(b).to_f32())),
            Element::U32 | Element::U8 => {
                Err(Error::Shape("indices and bytes are no floats".to_owned()))
            }
        }
    }

    /// The indices on the host.
    ///
    /// # Errors
    /// Faults of kernels; values that are no indices.
    pub fn to_u32(&self) -> Result<Vec<u32>> {
        match self.element {
            Element::U32 => Ok(from_bytes(&self.download()?, u32::from_le_bytes)),
            _ => Err(Error::Shape("only indices are indices".to_owned())),
        }
    }

    /// The bytes on the host.
    ///
    /// # Errors
    /// Faults of kernels; values that are no bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        match self.element {
            Element::U8 => self.download(),
            _ => Err(Error::Shape("floats and indices are no bytes".to_owned())),
        }
    }

    fn download(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.count() * self.element.bytes()];
        if !bytes.is_empty() {
            // SAFETY: the buffer has so many bytes.
            unsafe {
                self.device()
                    .driver()
                    .download(self.address(), &mut bytes)?
            };
        }
        Ok(bytes)
    }

    /// Bytes, of which four divide the last side, as indices; their values are shared.
    ///
    /// # Errors
    /// Another type or side.
    pub(crate) fn as_words(&self) -> Result<Self> {
        let width = self.width();
        if self.element != Element::U8 && self.element != Element::U32 || !width.is_multiple_of(4) {
            return Err(Error::shape("as_words", &self.dims, "bytes in fours"));
        }
        if self.element == Element::U32 {
            return Ok(self.clone());
        }
        let mut dims = self.dims.clone();
        dims.pop();
        dims.push(width / 4);
        Ok(Self {
            dims,
            element: Element::U32,
            ..self.clone()
        })
    }

    pub(crate) fn address(&self) -> u64 {
        self.buffer.address() + self.before as u64
    }

    /// As kernels take it: `Array`.
    pub(crate) fn array(&self) -> Structure {
        array(self.address(), self.element)
    }
}

/// An `Array` of kernels.
pub(crate) fn array(address: u64, element: Element) -> Structure {
    let wide = usize::from(element != Element::Bf16);
    Structure::new().pointer(address).int(wide).int(0)
}

fn from_bytes<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|chunk| value(*chunk))
        .collect()
}
