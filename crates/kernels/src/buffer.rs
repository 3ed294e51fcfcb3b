//! Memory for results that are written whole.

/// Values below which clearing costs nothing.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const SMALL: usize = 4096;

/// `len` values, whatever they are: for a result of which every value is written before one is read.
/// A large one costs no pass over its memory, which `vec![0.0; len]` does.
pub fn unfilled(len: usize) -> Vec<f32> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if len > SMALL
        && let Ok(layout) = std::alloc::Layout::array::<f32>(len)
    {
        // SAFETY: the layout is not empty and is that of a vector of `len` values. The assembly may,
        // as far as the compiler knows, have written all of them, so that they are initialised; any
        // bits are a valid f32.
        unsafe {
            let data = std::alloc::alloc(layout).cast::<f32>();
            if data.is_null() {
                std::alloc::handle_alloc_error(layout);
            }
            std::arch::asm!("/* {0} */", in(reg) data, options(nostack, preserves_flags));
            return Vec::from_raw_parts(data, len, len);
        }
    }
    vec![0.0; len]
}

#[cfg(test)]
mod tests {
    use super::unfilled;

    #[test]
    fn vectors_have_their_length_and_can_be_written() {
        for len in [0, 1, 5000, 1 << 20] {
            let mut values = unfilled(len);
            assert_eq!(values.len(), len);
            values.fill(1.5);
            assert!(values.iter().all(|v| *v == 1.5));
        }
    }
}
