//! Instruction sets of x86-64 as types: a value of one is the proof that this processor has the
//! instructions, because nothing else than detection makes it.

use std::arch::is_x86_feature_detected;
use std::sync::OnceLock;

/// AVX2 with FMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2 {
    _private: (),
}

impl Avx2 {
    /// None where the processor has it not.
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        has.then_some(Self { _private: () })
    }
}

/// AVX-VNNI, which multiplies bytes in 256-bit vectors, and all of [`Avx2`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AvxVnni {
    avx2: Avx2,
}

impl AvxVnni {
    /// None where the processor has it not.
    pub(crate) fn detect() -> Option<Self> {
        let avx2 = Avx2::detect()?;
        is_x86_feature_detected!("avxvnni").then_some(Self { avx2 })
    }

    pub(crate) fn avx2(self) -> Avx2 {
        self.avx2
    }
}

/// AVX-512 F, BW, DQ and VL (what the first server processor with 512-bit vectors brought, and every one
/// since), and all of [`Avx2`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512 {
    avx2: Avx2,
}

impl Avx512 {
    /// None where the processor has it not.
    pub(crate) fn detect() -> Option<Self> {
        let avx2 = Avx2::detect()?;
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        has.then_some(Self { avx2 })
    }

    pub(crate) fn avx2(self) -> Avx2 {
        self.avx2
    }

    /// The multiplication of bytes in 512-bit vectors, which not every processor with AVX-512 has.
    pub(crate) fn vnni(self) -> Option<Avx512Vnni> {
        is_x86_feature_detected!("avx512vnni").then_some(Avx512Vnni { avx512: self })
    }
}

/// AVX-512 VNNI, which multiplies bytes in 512-bit vectors, and all of [`Avx512`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512Vnni {
    avx512: Avx512,
}

/// Tile registers that multiply bf16 and bytes, which the system lets this process use, and all of
/// [`Avx512Vnni`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amx {
    vnni: Avx512Vnni,
}

impl Amx {
    /// None where processor or system have them not. Asking is what permits their use.
    pub(crate) fn detect() -> Option<Self> {
        static FOUND: OnceLock<Option<Amx>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let vnni = Avx512::detect()?.vnni()?;
            (has_tiles() && permit_tiles()).then_some(Self { vnni })
        })
    }

    pub(crate) fn avx512(self) -> Avx512 {
        self.vnni.avx512
    }

    pub(crate) fn vnni(self) -> Avx512Vnni {
        self.vnni
    }
}

/// Whether the processor has tiles, and products of bf16 and of bytes in them.
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    /// Bits of leaf 7: bf16 products, tiles, byte products.
    const NEEDED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    let leaves = __cpuid(0).eax;
    leaves >= 7 && __cpuid_count(7, 0).edx & NEEDED == NEEDED
}

/// Asks the system for the tile registers, which it saves for a process only on demand.
fn permit_tiles() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_PRCTL: i64 = 158;
        const REQUEST_PERMISSION: i64 = 0x1023;
        const TILE_DATA: i64 = 18;
        let result: i64;
        // SAFETY: this call reads and writes no memory of the process.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") REQUEST_PERMISSION,
                in("rsi") TILE_DATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        result == 0
    }
    #[cfg(not(target_os = "linux"))]
    false
}
