//! Run-time choice of the instruction set.
//!
//! A kernel's inner loop is written once, in plain Rust that the compiler can vectorise, inside
//! [`simd_dispatch!`](crate::simd_dispatch). The macro compiles it for AVX-512, for
//! AVX2 with FMA and for the baseline of the target, and calls the right one. Matrix products, which gain
//! most, have a kernel of their own for each [`Level`] (`microkernel.rs`); NEON would be one more level.

use std::sync::OnceLock;

/// Instruction sets that kernels are written for, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of the target has.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-VNNI, which adds products of bytes in 32 bits at once, and all of [`Level::Avx2`]: laptops
    /// since Alder Lake.
    AvxVnni,
    /// AVX-512 F, and all of [`Level::Avx2`].
    Avx512,
    /// Tile registers for bf16 and bytes, and all of [`Level::Avx512`] with VNNI.
    Amx,
}

impl Level {
    /// All levels that this processor has, slowest first.
    pub fn available() -> Vec<Level> {
        let levels = [
            Level::Portable,
            Level::Avx2,
            Level::AvxVnni,
            Level::Avx512,
            Level::Amx,
        ];
        // Many a processor with AVX-512 has no AVX-VNNI.
        let has = |level: Level| level <= detected() && (level != Level::AvxVnni || has_avx_vnni());
        levels.into_iter().filter(|level| has(*level)).collect()
    }

    /// Name as reports and `BRISK_SIMD` have it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::AvxVnni => "avx-vnni",
            Level::Avx512 => "avx512",
            Level::Amx => "amx",
        }
    }
}

/// The best level that this processor has, whatever the environment asks for.
pub(crate) fn detected() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma");
        // What the first server processor with 512-bit vectors brought, and every one since.
        let avx512 = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl");
        if avx2 && avx512 && has_vnni() && crate::amx::available() {
            return Level::Amx;
        }
        if avx2 && avx512 {
            return Level::Avx512;
        }
        if avx2 && has_avx_vnni() {
            return Level::AvxVnni;
        }
        if avx2 {
            return Level::Avx2;
        }
    }
    Level::Portable
}

/// The level in use: the best that the processor has, or a lower one that the environment variable
/// `BRISK_SIMD` names (`portable`, `avx2`, `avx-vnni`, `avx512`, `amx`).
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let wish = std::env::var("BRISK_SIMD").unwrap_or_default();
        let available = Level::available();
        let wished = available.iter().find(|level| level.name() == wish);
        wished.copied().unwrap_or_else(detected)
    })
}

/// Whether the processor multiplies bytes in 512-bit vectors (AVX-512 VNNI).
pub(crate) fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether the processor multiplies bytes in 256-bit vectors (AVX-VNNI).
fn has_avx_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Name of the instruction set in use, for reports.
pub fn name() -> &'static str {
    level().name()
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
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                if $crate::simd::level() >= $crate::simd::Level::Avx512 {
                    // SAFETY: this level is only reported where these features were detected.
                    return unsafe { avx512($($arg),*) };
                }
                if $crate::simd::level() >= $crate::simd::Level::Avx2 {
                    // SAFETY: this level is only reported where the two features that `avx2`
                    // needs were detected.
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
