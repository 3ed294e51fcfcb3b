//! Values in another arrangement or type.

use super::walk::Walk;
use super::{THREADS, blocks, device_of, within};
use crate::device::Device;
use crate::driver::Arguments;
use crate::error::{Error, Result};
use crate::ops::Activation;
use crate::tensor::{Element, Tensor, array};

/// A copy between strides, in values; dimensions outermost first.
struct Copy<'a> {
    sides: &'a [usize],
    /// From a tensor, first value and strides.
    from: (&'a Tensor, usize, &'a [usize]),
    /// To a tensor, the same.
    to: (&'a Tensor, usize, &'a [usize]),
}

impl Copy<'_> {
    /// # Safety
    /// All places lie in the tensors.
    unsafe fn run(&self, device: &Device) -> Result<()> {
        let (x, y) = (self.from.0, self.to.0);
        let bytes = [x, y].iter().any(|tensor| tensor.element() == Element::U8);
        if bytes || x.element().is_float() != y.element().is_float() {
            return Err(Error::shape(
                "copy",
                x.dims(),
                "values of one kind, floats or indices",
            ));
        }
        let place = |tensor: &Tensor, first: usize| {
            let address = tensor.address() + (first * tensor.element().bytes()) as u64;
            (address, array(address, tensor.element()))
        };
        let (from, to) = (place(x, self.from.1), place(y, self.to.1));
        let aligned = [from.0, to.0].iter().all(|at| at.is_multiple_of(16));
        let walk = Walk::new(self.sides, [self.from.2, self.to.2]);
        let (kernel, walk) = match walk.by_eights(false) {
            Some(eights) if aligned => ("copy_eights", eights),
            _ => ("copy_strided", walk),
        };
        if !walk.fits() {
            let expected = "fewer dimensions and values; copy it in parts";
            return Err(Error::shape("copy", x.dims(), expected));
        }
        let arguments = Arguments::new()
            .structure(&from.1)
            .structure(&to.1)
            .int(walk.count())
            .structure(&walk.structure());
        let blocks = blocks(walk.count());
        // SAFETY: the caller's; eights of neighbours begin on 16 bytes.
        unsafe { device.launch(("copy", kernel), blocks, THREADS, 0, &arguments) }
    }
}

/// Strides of a tensor without gaps.
pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for at in (1..dims.len()).rev() {
        strides[at - 1] = strides[at] * dims[at];
    }
    strides
}

/// The same values as another type; itself where it has that.
///
/// # Errors
/// Indices, memory that ran out, what the driver says.
pub fn cast(x: &Tensor, element: Element) -> Result<Tensor> {
    match x.element() == element {
        true => Ok(x.clone()),
        false => super::pointwise::unary(x, 1.0, 0.0, Activation::Identity, element),
    }
}

/// With zeros behind the last side's values, to a multiple of `chunk`; itself where it is one.
pub(super) fn padded_width(x: &Tensor, chunk: usize) -> Result<Tensor> {
    let width = x.width();
    let padded = width.next_multiple_of(chunk);
    if padded == width {
        return Ok(x.clone());
    }
    let mut dims = x.dims().to_vec();
    dims.pop();
    dims.push(padded);
    let y = x.device().zeros(&dims, x.element())?;
    let copy = Copy {
        sides: &[x.rows(), width],
        from: (x, 0, &[width, 1]),
        to: (&y, 0, &[padded, 1]),
    };
    // SAFETY: every row has room for the narrower one.
    unsafe { copy.run(x.device())? };
    Ok(y)
}

/// Dimensions in another order: new dimension `i` is old `order[i]`.
///
/// # Errors
/// As the module says.
pub fn permute(x: &Tensor, order: &[usize]) -> Result<Tensor> {
    let mut seen: Vec<usize> = order.to_vec();
    seen.sort_unstable();
    if !seen.iter().copied().eq(0..x.dims().len()) {
        return Err(Error::shape(
            "permute",
            x.dims(),
            &format!("dimensions {order:?}"),
        ));
    }
    let from = strides(x.dims());
    let sides: Vec<usize> = order.iter().map(|at| x.dims()[*at]).collect();
    let from: Vec<usize> = order.iter().map(|at| from[*at]).collect();
    gathered(x, &sides, &from, 0)
}

/// Repeated along sides of one; a tensor of fewer dimensions gets sides of one before its first.
///
/// # Errors
/// As the module says.
pub fn broadcast(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    match broadcast_strides(x.dims(), dims) {
        Some(from) => gathered(x, dims, &from, 0),
        None => Err(Error::shape(
            "broadcast",
            x.dims(),
            &format!("sides of one, or those of {dims:?}"),
        )),
    }
}

/// Strides by which a tensor of `from` is read as one of `to`.
pub(super) fn broadcast_strides(from: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let missing = to.len().checked_sub(from.len())?;
    let own = strides(from);
    let mut all = vec![0; missing];
    for ((side, stride), wanted) in from.iter().zip(own).zip(&to[missing..]) {
        all.push(match (side == wanted, *side) {
            (true, _) => stride,
            (false, 1) => 0,
            _ => return None,
        });
    }
    Some(all)
}

/// The values at `first` and strides `from`, without gaps.
fn gathered(x: &Tensor, sides: &[usize], from: &[usize], first: usize) -> Result<Tensor> {
    let y = x.device().unset(sides, x.element())?;
    let copy = Copy {
        sides,
        from: (x, first, from),
        to: (&y, 0, &strides(sides)),
    };
    // SAFETY: callers derive sides and strides from the tensor's own; the result has the sides.
    unsafe { copy.run(x.device())? };
    Ok(y)
}

/// `length` indices of `dim` from `start`, copied where they do not lie side by side.
///
/// # Errors
/// As the module says.
pub fn narrow(x: &Tensor, dim: usize, start: usize, length: usize) -> Result<Tensor> {
    let side = x.dims().get(dim).copied().unwrap_or(0);
    if dim >= x.dims().len() || start.checked_add(length).is_none_or(|end| end > side) {
        let expected = format!("{length} from {start} along dimension {dim}");
        return Err(Error::shape("narrow", x.dims(), &expected));
    }
    if length == side {
        return Ok(x.clone());
    }
    let own = strides(x.dims());
    let mut sides = x.dims().to_vec();
    sides[dim] = length;
    let first = start * own[dim];
    // What lies side by side and begins as kernels want it needs no copy.
    let whole = x.dims()[..dim].iter().all(|side| *side == 1);
    if whole && (first * x.element().bytes()).is_multiple_of(16) {
        return x.part(first, &sides);
    }
    gathered(x, &sides, &own, first)
}

/// Overwrites `y` along `dim` from `start` with `x`; clones of `y` see it.
///
/// # Errors
/// As the module says, or tensors that share their memory.
pub fn write_slice(y: &Tensor, x: &Tensor, dim: usize, start: usize) -> Result<()> {
    let device = device_of("slice_set", &[y, x])?;
    let rank = y.dims().len();
    let fits = dim < rank
        && x.dims().len() == rank
        && !x.shares(y)
        && (0..rank).all(|at| match at == dim {
            true => start
                .checked_add(x.dims()[at])
                .is_some_and(|end| end <= y.dims()[at]),
            false => x.dims()[at] == y.dims()[at],
        });
    if !fits {
        let expected = format!(
            "a slice of {:?} along dimension {dim} from {start}",
            y.dims()
        );
        return Err(Error::shape("slice_set", x.dims(), &expected));
    }
    let (from, to) = (strides(x.dims()), strides(y.dims()));
    let copy = Copy {
        sides: x.dims(),
        from: (x, 0, &from),
        to: (y, start * to[dim], &to),
    };
    // SAFETY: the slice lies in the tensor, as was checked.
    unsafe { copy.run(device) }
}

/// Tensors side by side along `dim`.
///
/// # Errors
/// As the module says.
pub fn concatenate(parts: &[&Tensor], dim: usize) -> Result<Tensor> {
    let Some(first) = parts.first() else {
        return Err(Error::Shape("cat: nothing to join".to_owned()));
    };
    if let [one] = parts {
        return Ok((*one).clone());
    }
    let device = device_of("cat", parts)?;
    let mut dims = first.dims().to_vec();
    if dim >= dims.len() {
        return Err(Error::shape(
            "cat",
            &dims,
            &format!("more than {dim} dimensions"),
        ));
    }
    dims[dim] = parts
        .iter()
        .map(|part| part.dims().get(dim).copied().unwrap_or(0))
        .sum();
    let wide = parts.iter().any(|part| part.element() == Element::F32);
    let element = if wide { Element::F32 } else { first.element() };
    let y = device.unset(&dims, element)?;
    let mut start = 0;
    for part in parts {
        write_slice(&y, part, dim, start)?;
        start += part.dims()[dim];
    }
    Ok(y)
}

/// Rows of `x` `[n, ..]` by indices `[m]`: `[m, ..]`. An index beyond `n` gives NaN.
///
/// # Errors
/// As the module says.
pub fn gather(x: &Tensor, indices: &Tensor) -> Result<Tensor> {
    let device = device_of("index_select", &[x, indices])?;
    if indices.element() != Element::U32 || x.dims().is_empty() || x.element() == Element::U32 {
        return Err(Error::shape(
            "index_select",
            x.dims(),
            "rows of floats, and indices of u32",
        ));
    }
    let mut dims = x.dims().to_vec();
    let (known, width) = (dims[0], dims[1..].iter().product::<usize>());
    dims[0] = indices.count();
    within("index_select", x, &[known, width])?;
    let y = device.unset(&dims, x.element())?;
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(indices.address())
        .structure(&y.array())
        .long(y.count())
        .int(width)
        .int(known);
    // SAFETY: the kernel reads rows below `known` only, and `y` has a row an index.
    unsafe {
        device.launch(
            ("copy", "gather_rows"),
            blocks(y.count() / if width.is_multiple_of(8) { 8 } else { 1 }),
            THREADS,
            0,
            &arguments,
        )?
    };
    Ok(y)
}

/// Means of `group` neighbours of the last side.
///
/// # Errors
/// As the module says.
pub fn group_mean(x: &Tensor, group: usize) -> Result<Tensor> {
    if group == 0 || !x.width().is_multiple_of(group) {
        return Err(Error::shape(
            "group_mean",
            x.dims(),
            &format!("a multiple of {group} channels"),
        ));
    }
    let mut dims = x.dims().to_vec();
    let width = dims.pop().unwrap_or(1);
    dims.push(width / group);
    let y = x.device().unset(&dims, x.element())?;
    let arguments = Arguments::new()
        .structure(&x.array())
        .structure(&y.array())
        .long(y.count())
        .int(group);
    // SAFETY: x has `group` values for each of y.
    unsafe {
        x.device().launch(
            ("copy", "group_mean"),
            blocks(y.count()),
            THREADS,
            0,
            &arguments,
        )?
    };
    Ok(y)
}
