//! Telling one set of weights from another without reading all of it.

use crate::{Result, TensorSource};

/// Pieces of a tensor that are looked at, from its first bytes to its last.
const PIECES: usize = 16;
/// Bytes of a piece.
const PIECE: usize = 256;

/// A number, in hexadecimal, that changes with every name, type and shape, and with the values: pieces
/// of every tensor count, at most 4 KiB each. It tells models and fine-tunings apart; it is no
/// protection against somebody who means to deceive.
///
/// # Errors
/// Tensors that cannot be read.
pub fn fingerprint(source: &dyn TensorSource) -> Result<String> {
    let mut hash = Fingerprint::default();
    for name in source.names() {
        hash.add(name.as_bytes());
        let Some(view) = source.view(&name)? else {
            continue;
        };
        hash.add(view.dtype.to_string().as_bytes());
        for size in &view.shape {
            hash.add(&(*size as u64).to_le_bytes());
        }
        let data = &view.data;
        if data.len() <= PIECES * PIECE {
            hash.add(data);
        } else {
            let last = data.len() - PIECE;
            for piece in 0..PIECES {
                let start = last / (PIECES - 1) * piece;
                hash.add(&data[start..start + PIECE]);
            }
            hash.add(&data[last..]);
        }
        source.forget(&name);
    }
    Ok(hash.text())
}

/// A number that changes with everything that is [added](Self::add): FNV-1a of 64 bits, no protection against
/// somebody who means to deceive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Lets all of `bytes` count.
    pub fn add(&mut self, bytes: &[u8]) {
        // The length first, so that neighbours cannot trade bytes.
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    /// It in hexadecimal.
    pub fn text(&self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, MemorySource};

    fn of(name: &str, shape: Vec<usize>, change: Option<usize>) -> String {
        let mut data = vec![7u8; shape.iter().product()];
        if let Some(at) = change {
            data[at] = 8;
        }
        let source = MemorySource::new(vec![(name.into(), Dtype::U8, shape, data)]).unwrap();
        fingerprint(&source).unwrap()
    }

    #[test]
    fn names_shapes_and_values_count() {
        let size = 100_000;
        let base = of("a", vec![size], None);
        assert_eq!(base, of("a", vec![size], None));
        for other in [
            of("b", vec![size], None),
            of("a", vec![size / 2, 2], None),
            of("a", vec![size], Some(0)),
            of("a", vec![size], Some(size - 1)),
            of("a", vec![size + 1], None),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(of("a", vec![2000], None), of("a", vec![2000], Some(1000)));
    }
}
