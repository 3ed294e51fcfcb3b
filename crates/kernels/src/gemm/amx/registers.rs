//! The tile registers themselves.

use super::{LINE, PARTS, ROWS, TILE};
use crate::gemm::layout::{PANEL, Target};
use crate::simd::x86::Amx;
use std::arch::asm;
use std::marker::PhantomData;

/// The tile registers of this thread, all of 16 rows of 64 bytes, until it is dropped.
pub(crate) struct Tiles(PhantomData<*const ()>);

/// What tiles of rows and panels of weights hold.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    /// Two tiles of rows, of three parts a step.
    pub a: [*const u8; 2],
    /// Two panels, of as many parts a step as `parts` says.
    pub b: [*const u8; 2],
    /// 1 or 3.
    pub parts: usize,
    /// Where panels have one part: how many bytes past it are asked for.
    pub ahead: usize,
    pub steps: usize,
}

impl Tiles {
    /// Nothing else of this thread holds a value of this type meanwhile: its drop would take them away.
    pub(crate) fn configure(_: Amx) -> Self {
        /// Palette 1, then widths in bytes from byte 16 and rows from byte 48.
        #[repr(align(64))]
        struct Configuration([u8; 64]);
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1;
        for tile in 0..8 {
            configuration.0[16 + 2 * tile] = LINE as u8;
            configuration.0[48 + tile] = ROWS as u8;
        }
        // SAFETY: the argument proves that processor and system allow it; the configuration is valid, and
        // no other code uses these registers.
        unsafe {
            asm!("ldtilecfg [{0}]", in(reg) &configuration.0, options(nostack, readonly));
        }
        Self(PhantomData)
    }

    /// `target (+)= a·b` for up to two tiles of rows and two panels.
    ///
    /// # Safety
    /// They hold `steps` steps each, the second of a pair where it is used; the target has these rows
    /// and columns, and nobody else uses it.
    pub(super) unsafe fn multiply(
        &self,
        factors: Factors,
        (rows, columns): (usize, usize),
        target: Target,
    ) {
        let whole = rows % ROWS == 0 && columns == 2 * PANEL;
        if whole {
            let c = (target.out, target.stride * size_of::<f32>());
            // SAFETY: the caller promised the factors and a target of these rows and columns, which are
            // whole tiles.
            unsafe { multiply_whole(factors, c, rows > ROWS, target.accumulate) };
            return;
        }
        #[repr(align(64))]
        struct Products([[f32; 2 * PANEL]; 2 * ROWS]);
        let mut products = Products([[0.0; 2 * PANEL]; 2 * ROWS]);
        let out = |i: usize| target.out.wrapping_add(i * target.stride);
        if target.accumulate {
            // As in whole tiles, so that a value doesn't depend on where its row ends up.
            for (i, products) in products.0[..rows].iter_mut().enumerate() {
                // SAFETY: the caller promised a target of these rows and columns.
                let before = unsafe { std::slice::from_raw_parts(out(i), columns) };
                products[..columns].copy_from_slice(before);
            }
        }
        // A missing second panel counts as the first once more; nobody looks at the result.
        let factors = match columns > PANEL {
            true => factors,
            false => Factors {
                b: [factors.b[0]; 2],
                ..factors
            },
        };
        let c = (products.0.as_mut_ptr().cast(), size_of_val(&products.0[0]));
        // SAFETY: the caller promised the factors; the products have room for all tiles.
        unsafe { multiply_whole(factors, c, rows > ROWS, target.accumulate) };
        for (i, products) in products.0[..rows].iter().enumerate() {
            // SAFETY: the caller promised a target of these rows and columns.
            let row = unsafe { std::slice::from_raw_parts_mut(out(i), columns) };
            row.copy_from_slice(&products[..columns]);
        }
    }
}

/// The product of a group of bytes in a tile: the group's places among codes and weights, and two tiles
/// for the factors.
macro_rules! group {
    ($out:literal, $codes:literal, $weights:literal, $a:literal, $b:literal) => {
        concat!(
            "tilezero ",
            $out,
            "\n",
            "tileloadd ",
            $a,
            ", [{codes} + {stride} + ",
            $codes,
            "]\n",
            "tileloadd ",
            $b,
            ", [{weights} + {line} + ",
            $weights,
            "]\n",
            "tdpbssd ",
            $out,
            ", ",
            $a,
            ", ",
            $b,
            "\n",
        )
    };
}

/// Groups of bytes that are multiplied at once, at most.
pub(crate) const BATCH: usize = 4;

impl Tiles {
    /// Products of bytes, of `count` groups of 64 inner values, which [`store_products`] takes: codes of
    /// 16 rows, with the distance between rows in bytes, and a tile of weights a group.
    ///
    /// # Safety
    /// That is what stands there; there are 1 to [`BATCH`] groups.
    #[inline(always)]
    pub(crate) unsafe fn multiply_bytes(
        &self,
        codes: (*const i8, usize),
        weights: *const i8,
        count: usize,
    ) {
        macro_rules! groups {
            ($($step:expr),+) => {
                asm!(
                    $($step,)+
                    codes = in(reg) codes.0,
                    stride = in(reg) codes.1,
                    weights = in(reg) weights,
                    line = in(reg) LINE,
                    options(nostack, readonly),
                )
            };
        }
        // SAFETY: reads the codes and weights that the caller promised. Nobody but this type's methods uses tile registers.
        unsafe {
            match count {
                1 => groups!(group!("tmm0", "0", "0", "tmm4", "tmm5")),
                2 => groups!(
                    group!("tmm0", "0", "0", "tmm4", "tmm5"),
                    group!("tmm1", "64", "1024", "tmm6", "tmm7")
                ),
                3 => groups!(
                    group!("tmm0", "0", "0", "tmm4", "tmm5"),
                    group!("tmm1", "64", "1024", "tmm6", "tmm7"),
                    group!("tmm2", "128", "2048", "tmm4", "tmm5")
                ),
                _ => groups!(
                    group!("tmm0", "0", "0", "tmm4", "tmm5"),
                    group!("tmm1", "64", "1024", "tmm6", "tmm7"),
                    group!("tmm2", "128", "2048", "tmm4", "tmm5"),
                    group!("tmm3", "192", "3072", "tmm6", "tmm7")
                ),
            }
        }
    }

    /// Stores the products of `count` groups, a tile of 32-bit integers each.
    ///
    /// # Safety
    /// There is room for them, and as many were computed last.
    #[inline(always)]
    pub(crate) unsafe fn store_products(&self, products: *mut i32, count: usize) {
        macro_rules! store {
            ($($step:literal),+) => {
                asm!(
                    $(concat!("tilestored [{products} + {line} + ", $step),)+
                    products = in(reg) products,
                    line = in(reg) LINE,
                    options(nostack),
                )
            };
        }
        // SAFETY: writes as many tiles as the caller promised room for.
        unsafe {
            match count {
                1 => store!("0], tmm0"),
                2 => store!("0], tmm0", "1024], tmm1"),
                3 => store!("0], tmm0", "1024], tmm1", "2048], tmm2"),
                _ => store!("0], tmm0", "1024], tmm1", "2048], tmm2", "3072], tmm3"),
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: gives the registers back; nothing in them is needed any more.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// The part of the weights at an offset, of both panels, to tmm6 and tmm7.
macro_rules! weights {
    ($offset:literal) => {
        concat!(
            "tileloadd tmm6, [{b0} + {line} + ",
            $offset,
            "]\n",
            "tileloadd tmm7, [{b1} + {line} + ",
            $offset,
            "]\n",
        )
    };
}

/// Asks for the lines of the tiles that stand `ahead` bytes past those of the weights.
macro_rules! fetch {
    ($($offset:literal)*) => {
        concat!($(
            "prefetcht0 [{b0} + {ahead} + ", $offset, "]\n",
            "prefetcht0 [{b1} + {ahead} + ", $offset, "]\n",
        )*)
    };
}

/// Their products with the input's part at an offset, for one tile of rows.
macro_rules! one {
    ($offset:literal) => {
        concat!(
            "tileloadd tmm4, [{a0} + {line} + ",
            $offset,
            "]\n",
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            "tdpbf16ps tmm1, tmm4, tmm7\n",
        )
    };
}

/// The same for two tiles of rows.
macro_rules! two {
    ($offset:literal) => {
        concat!(
            one!($offset),
            "tileloadd tmm5, [{a1} + {line} + ",
            $offset,
            "]\n",
            "tdpbf16ps tmm2, tmm5, tmm6\n",
            "tdpbf16ps tmm3, tmm5, tmm7\n",
        )
    };
}

/// Input parts times the only part of bf16 weights.
macro_rules! times_half {
    ($rows:ident) => {
        concat!(
            weights!("0"),
            fetch!("0" "64" "128" "192" "256"),
            $rows!("0"),
            fetch!("320" "384" "448" "512" "576"),
            $rows!("1024"),
            fetch!("640" "704" "768" "832" "896" "960"),
            $rows!("2048"),
        )
    };
}

/// Input parts times three parts of f32 weights, but for what is below 2^-24 of the product.
macro_rules! times_full {
    ($rows:ident) => {
        concat!(
            weights!("0"),
            $rows!("0"),
            $rows!("1024"),
            $rows!("2048"),
            weights!("1024"),
            $rows!("0"),
            $rows!("1024"),
            weights!("2048"),
            $rows!("0"),
        )
    };
}

macro_rules! product {
    (
        $step:expr, $parts:expr, $factors:expr, $target:expr, $keep:expr
        $(, $name:ident = $value:expr)*
    ) => {{
        let (Factors { a, b, steps, .. }, (c, stride)) = ($factors, $target);
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {keep}, {keep}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {stride}]",
            "tileloadd tmm1, [{c} + {stride} + 64]",
            "cmp {c}, {lower}",
            "je 2f",
            "tileloadd tmm2, [{lower} + {stride}]",
            "tileloadd tmm3, [{lower} + {stride} + 64]",
            "2:",
            $step,
            "add {a0}, {a_step}",
            "add {a1}, {a_step}",
            "add {b0}, {b_step}",
            "add {b1}, {b_step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {stride}], tmm0",
            "tilestored [{c} + {stride} + 64], tmm1",
            "cmp {c}, {lower}",
            "je 3f",
            "tilestored [{lower} + {stride}], tmm2",
            "tilestored [{lower} + {stride} + 64], tmm3",
            "3:",
            keep = in(reg) usize::from($keep),
            steps = inout(reg) steps => _,
            a0 = inout(reg) a[0] => _,
            a1 = inout(reg) a[1] => _,
            b0 = inout(reg) b[0] => _,
            b1 = inout(reg) b[1] => _,
            c = in(reg) c[0],
            lower = in(reg) c[1],
            stride = in(reg) stride,
            line = in(reg) LINE,
            $($name = in(reg) $value,)*
            a_step = const PARTS * TILE,
            b_step = const $parts * TILE,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    }};
}

/// Whole tiles only: one tile of rows, or two where `both` says so. The target's rows stand as many
/// bytes apart as is given with it.
///
/// # Safety
/// As for [`Tiles::multiply`]; the registers are configured.
unsafe fn multiply_whole(factors: Factors, (c, stride): (*mut f32, usize), both: bool, keep: bool) {
    let lower = c.wrapping_add(if both {
        ROWS * stride / size_of::<f32>()
    } else {
        0
    });
    let target = ([c, lower], stride);
    let ahead = factors.ahead;
    assert!(factors.steps > 0 && matches!(factors.parts, 1 | PARTS));
    // SAFETY: reads tiles within the factors and the target, and writes the target's; the caller promised
    // both, and there is at least one step.
    unsafe {
        match (factors.parts, both) {
            (1, false) => product!(times_half!(one), 1, factors, target, keep, ahead = ahead),
            (1, true) => product!(times_half!(two), 1, factors, target, keep, ahead = ahead),
            (_, false) => product!(times_full!(one), PARTS, factors, target, keep),
            (_, true) => product!(times_full!(two), PARTS, factors, target, keep),
        }
    }
}
