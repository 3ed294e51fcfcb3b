//! Run-time choice of the instruction set.
//!
//! A kernel's inner loop is written once, in plain Rust that the compiler can vectorise, inside
//! [`simd_dispatch!`](crate::simd_dispatch). The macro compiles it twice, for AVX2 + FMA and for the
//! baseline of the target, and calls the right one. AVX-512 and NEON are added by one more arm here.

/// Whether this processor has AVX2 and FMA.
#[inline]
pub fn has_avx2_fma() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Name of the instruction set in use, for reports.
pub fn name() -> &'static str {
    if has_avx2_fma() {
        "avx2+fma"
    } else {
        "portable"
    }
}

/// Compiles a function for each supported instruction set and dispatches at run time.
#[macro_export]
macro_rules! simd_dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                if $crate::simd::has_avx2_fma() {
                    // SAFETY: the two features that `avx2` needs were detected just above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}

/// Makes this thread treat denormal numbers (below 1.2e-38) as zero, which it otherwise computes
/// with up to a hundred times slower. Threads started afterwards by this one inherit it on Linux;
/// elsewhere each calls it.
///
/// Trained networks meet such numbers all the time: the gradient of SiLU far below zero is one.
pub fn flush_denormals() {
    #[cfg(target_arch = "x86_64")]
    {
        /// Flush results (bit 15) and inputs (bit 6) to zero.
        const FLUSH: u32 = 0x8040;
        let mut control = 0u32;
        // SAFETY: reads and writes the SSE control register of this thread through a valid
        // pointer. Exceptions stay masked and rounding stays as it was; only denormals change.
        unsafe {
            std::arch::asm!("stmxcsr [{0}]", in(reg) &mut control, options(nostack));
            control |= FLUSH;
            std::arch::asm!("ldmxcsr [{0}]", in(reg) &control, options(nostack, readonly));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn denormals_become_zero() {
        // On a thread of its own, so that other tests keep the default.
        let flushed = std::thread::spawn(|| {
            super::flush_denormals();
            std::hint::black_box(1e-30f32) * std::hint::black_box(1e-10f32)
        });
        assert_eq!(flushed.join().unwrap(), 0.0);
        assert_ne!(
            std::hint::black_box(1e-30f32) * std::hint::black_box(1e-10f32),
            0.0
        );
    }
}
