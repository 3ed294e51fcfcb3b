//! The kernels' machine code, committed beside their sources.

use std::io::Read;

use crate::error::{Error, Result};

/// A kernel file, what it is compiled from and to.
struct Compiled {
    file: &'static str,
    /// By [`TARGETS`], deflated.
    code: [&'static [u8]; TARGETS.len()],
}

/// What kernels are compiled for: machine code for three generations of cards, and PTX, which a driver
/// compiles for cards that nobody knew.
pub const TARGETS: [&str; 4] = ["sm_80", "sm_90a", "sm_120", "compute_80"];

include!(concat!(env!("OUT_DIR"), "/compiled.rs"));

/// Which of [`TARGETS`] a card of this compute capability runs; none where it is too old.
pub fn target((major, minor): (u32, u32)) -> Option<&'static str> {
    match (major, minor) {
        (0..8, _) => None,
        (8, _) => Some(TARGETS[0]),
        // The `a` of sm_90a is for this card alone.
        (9, 0) => Some(TARGETS[1]),
        (12, _) => Some(TARGETS[2]),
        _ => Some(TARGETS[3]),
    }
}

/// Whether kernels compiled for a target begin with waiting for the one before (`take_turn` in the kernels' words).
pub(crate) fn waits(target: &str) -> bool {
    matches!(target, "sm_90a" | "sm_120")
}

/// The machine codes of a kernel file that may run on a card, best first: the target's name and the code.
pub(crate) fn candidates(
    file: &str,
    capability: (u32, u32),
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let compiled = COMPILED.iter().find(|compiled| compiled.file == file);
    let compiled = compiled.ok_or_else(|| Error::MachineCode {
        file: file.to_owned(),
        reason: "there is no such file".to_owned(),
    })?;
    // Where a driver refuses a card's own code, it may still compile the PTX.
    let own = target(capability);
    let chosen =
        (0..TARGETS.len()).filter(|at| Some(TARGETS[*at]) == own || *at + 1 == TARGETS.len());
    chosen
        .map(|at| {
            let mut code = Vec::new();
            let mut inflated = flate2::read::DeflateDecoder::new(compiled.code[at]);
            inflated
                .read_to_end(&mut code)
                .map_err(|error| Error::MachineCode {
                    file: file.to_owned(),
                    reason: format!("{}: {error}", TARGETS[at]),
                })?;
            // PTX is a text that ends with zero.
            code.push(0);
            Ok((TARGETS[at], code))
        })
        .collect()
}

/// The number that says of which sources and options machine code was made (FNV-1a, 64 bits).
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let bytes = parts.into_iter().flat_map(|part| part.iter().chain(&[0u8]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
