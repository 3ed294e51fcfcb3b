//! The levels that kernels are written for, and which of them is in use.

#[cfg(target_arch = "x86_64")]
use super::x86::{Amx, Avx2, Avx512, Avx512Vnni, AvxVnni};
use std::sync::OnceLock;

/// Instruction sets that kernels are written for, slowest first. One that needs more than the target has
/// holds the proof that this processor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// What every processor of the target has.
    Portable,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-VNNI, which adds products of bytes in 32 bits at once, and all of [`Level::Avx2`]: laptops
    /// since Alder Lake.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// AVX-512 F, BW, DQ and VL, and all of [`Level::Avx2`]; with VNNI where the processor has it.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// Tile registers for bf16 and bytes, and all of [`Level::Avx512`] with VNNI.
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
}

impl Level {
    /// All levels that this processor has, slowest first.
    pub(crate) fn available() -> Vec<Level> {
        #[allow(unused_mut)] // nothing to add on other targets
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(Avx2::detect().map(Level::Avx2));
            levels.extend(AvxVnni::detect().map(Level::AvxVnni));
            levels.extend(Avx512::detect().map(Level::Avx512));
            levels.extend(Amx::detect().map(Level::Amx));
        }
        levels
    }

    /// Name as reports and `BRISK_SIMD` have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni(_) => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Amx(_) => "amx",
        }
    }

    /// The proof that the processor has AVX2 and FMA, where this level has them.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn avx2(self) -> Option<Avx2> {
        match self {
            Level::Portable => None,
            Level::Avx2(isa) => Some(isa),
            Level::AvxVnni(isa) => Some(isa.avx2()),
            Level::Avx512(isa) => Some(isa.avx2()),
            Level::Amx(isa) => Some(isa.avx512().avx2()),
        }
    }

    /// The proof that the processor has AVX-512, where this level has it.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn avx512(self) -> Option<Avx512> {
        match self {
            Level::Avx512(isa) => Some(isa),
            Level::Amx(isa) => Some(isa.avx512()),
            Level::Portable | Level::Avx2(_) | Level::AvxVnni(_) => None,
        }
    }
}

/// The instructions that multiply bytes at a level, whose sums are of 32 bits; slowest first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ByteProducts {
    Portable,
    /// Pairs of products, in 16 bits at first.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
}

impl Level {
    pub(crate) fn byte_products(self) -> ByteProducts {
        match self {
            Level::Portable => ByteProducts::Portable,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(isa) => ByteProducts::Avx2(isa),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni(isa) => ByteProducts::AvxVnni(isa),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(isa) => match isa.vnni() {
                Some(vnni) => ByteProducts::Avx512Vnni(vnni),
                None => ByteProducts::Avx2(isa.avx2()),
            },
            #[cfg(target_arch = "x86_64")]
            Level::Amx(isa) => ByteProducts::Amx(isa),
        }
    }
}

/// The environment variable that asks for a level by name.
const VARIABLE: &str = "BRISK_SIMD";

fn wished<'a>(wish: &str, available: &'a [Level]) -> Option<&'a Level> {
    available.iter().find(|level| level.name() == wish)
}

/// The level in use: the best that the processor has, or a lower one that the environment variable
/// `BRISK_SIMD` names (`portable`, `avx2`, `avx-vnni`, `avx512`, `amx`).
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let available = Level::available();
        let wish = std::env::var(VARIABLE).unwrap_or_default();
        let level = wished(&wish, &available).or(available.last());
        level.copied().unwrap_or(Level::Portable)
    })
}

/// Name of the instruction set in use, for reports.
pub fn name() -> &'static str {
    level().name()
}

/// Whether `BRISK_SIMD` is unset, empty, or a level that this processor has.
///
/// # Errors
/// What it is and what it could be. Kernels take the best one then.
pub fn check_environment() -> Result<(), String> {
    match std::env::var_os(VARIABLE) {
        Some(wish) => check(&wish.to_string_lossy(), &Level::available()),
        None => Ok(()),
    }
}

fn check(wish: &str, available: &[Level]) -> Result<(), String> {
    if wish.is_empty() || wished(wish, available).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = available.iter().map(|level| level.name()).collect();
    let names = names.join(", ");
    Err(format!(
        "{VARIABLE} is '{wish}', but kernels on this processor run at the levels {names}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_environment_asks_for_is_a_level_or_an_error() {
        let available = Level::available();
        for wish in ["", "portable", available[available.len() - 1].name()] {
            assert_eq!(check(wish, &available), Ok(()));
        }
        let error = check("avx1024", &available).unwrap_err();
        assert!(
            error.contains("BRISK_SIMD is 'avx1024'") && error.contains("portable"),
            "{error}"
        );
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_level_proves_all_that_lower_ones_need() {
        for level in Level::available() {
            assert_eq!(level.avx2().is_some(), level != Level::Portable);
            let wide = matches!(level, Level::Avx512(_) | Level::Amx(_));
            assert_eq!(level.avx512().is_some(), wide);
        }
    }
}
