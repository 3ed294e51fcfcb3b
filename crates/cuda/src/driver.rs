//! What a device is asked for: by a card's driver, or by the emulator that stands for one in tests.

use crate::error::Result;

/// Where memory and launches come from. Calls are queued in order on one stream.
pub trait Driver: Send + Sync {
    /// What it drives.
    fn card(&self) -> &Card;

    /// So many bytes, more than none, at an address that 256 divides.
    ///
    /// # Errors
    /// Memory that ran out.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives back what [`Driver::allocate`] gave, once all that is queued has run.
    ///
    /// # Safety
    /// The address is from this driver, and nothing queued later uses it.
    unsafe fn free(&self, address: u64);

    /// Bytes free and in all.
    fn memory(&self) -> (usize, usize);

    /// Copies to the device; `bytes` may change after the call.
    ///
    /// # Safety
    /// So many bytes were allocated from the address on.
    ///
    /// # Errors
    /// What the driver says.
    unsafe fn upload(&self, to: u64, bytes: &[u8]) -> Result<()>;

    /// Copies from the device, once all that is queued has run.
    ///
    /// # Safety
    /// So many bytes were allocated from the address on.
    ///
    /// # Errors
    /// What the driver says, faults of earlier launches included.
    unsafe fn download(&self, from: u64, bytes: &mut [u8]) -> Result<()>;

    /// Sets bytes to zero.
    ///
    /// # Safety
    /// So many bytes were allocated from the address on.
    ///
    /// # Errors
    /// What the driver says.
    unsafe fn clear(&self, to: u64, bytes: usize) -> Result<()>;

    /// Queues a kernel.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and what it reads and writes through them was allocated.
    ///
    /// # Errors
    /// What the driver says.
    unsafe fn launch(&self, launch: &Launch) -> Result<()>;

    /// A matrix or map of bf16 from an address on, of which kernels copy boxes: sides and box innermost first. For cards
    /// that have such copies.
    ///
    /// # Errors
    /// What the driver says.
    fn tensor_map(&self, address: u64, sides: &[usize], of_box: &[usize]) -> Result<TensorMap>;

    /// Waits until all that is queued has run.
    ///
    /// # Errors
    /// Faults of launches.
    fn synchronize(&self) -> Result<()>;

    /// Seconds that the card takes for what `work` queues, without the host's part.
    ///
    /// # Errors
    /// Those of `work`, and what the driver says.
    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64>;

    /// Whether every buffer is to be allocated by itself, so that the driver sees what lies beyond it.
    fn checks_bounds(&self) -> bool {
        false
    }
}

/// A card.
#[derive(Clone, Debug)]
pub struct Card {
    /// As its driver calls it.
    pub name: String,
    /// Which of the machine's.
    pub index: usize,
    /// Its compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of memory.
    pub memory: usize,
}

/// A tensor and a box of it, as the driver encodes them for a kernel.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u64; 16]);

/// A kernel to be run.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The kernel file, without its ending.
    pub file: &'static str,
    /// The kernel in it.
    pub kernel: &'static str,
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of shared memory of a block.
    pub shared: u32,
    /// What it is called with.
    pub arguments: &'a Arguments,
}

/// Arguments of a kernel, as bytes in the layout C gives them.
#[derive(Debug, Default)]
pub struct Arguments {
    words: Vec<u64>,
    /// First word and bytes of each.
    spans: Vec<(usize, u32)>,
}

impl Arguments {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An address.
    #[must_use]
    pub fn pointer(self, address: u64) -> Self {
        self.bytes(&address.to_le_bytes())
    }

    /// A tensor and a box of it, by value.
    #[must_use]
    pub fn map(mut self, map: &TensorMap) -> Self {
        self.spans
            .push((self.words.len(), size_of::<TensorMap>() as u32));
        self.words.extend(map.0);
        self
    }

    /// A C `int`.
    #[must_use]
    pub fn int(self, value: usize) -> Self {
        self.bytes(&int(value).to_le_bytes())
    }

    /// A C `long long`.
    #[must_use]
    pub fn long(self, value: usize) -> Self {
        self.pointer(value as u64)
    }

    /// A C `float`.
    #[must_use]
    pub fn float(self, value: f32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A structure by value.
    #[must_use]
    pub fn structure(self, structure: &Structure) -> Self {
        let mut bytes = structure.bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(structure.align.max(1)), 0);
        self.bytes(&bytes)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.spans.push((self.words.len(), bytes.len() as u32));
        self.words.extend(bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        }));
        self
    }

    /// Where each argument's bytes begin. They live as long as the arguments.
    pub fn pointers(&self) -> Vec<*const u64> {
        let starts = self.spans.iter();
        starts
            .map(|&(first, _)| self.words[first..].as_ptr())
            .collect()
    }

    /// Bytes of each argument.
    pub fn sizes(&self) -> Vec<u32> {
        self.spans.iter().map(|&(_, bytes)| bytes).collect()
    }
}

/// A size that a kernel takes as a C `int`; operations check theirs against [`LARGEST`].
fn int(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Most rows, columns or channels of an operation.
pub const LARGEST: usize = i32::MAX as usize;

/// A structure's members in order, in the layout C gives them.
#[derive(Debug, Default)]
pub struct Structure {
    bytes: Vec<u8>,
    align: usize,
}

impl Structure {
    /// Without members.
    pub fn new() -> Self {
        Self::default()
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        let at = self.bytes.len().next_multiple_of(bytes.len());
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(bytes);
        self.align = self.align.max(bytes.len());
        self
    }

    /// An address.
    #[must_use]
    pub fn pointer(self, address: u64) -> Self {
        self.put(&address.to_le_bytes())
    }

    /// A C `int`.
    #[must_use]
    pub fn int(self, value: usize) -> Self {
        self.put(&int(value).to_le_bytes())
    }

    /// A C `int` that may be below zero.
    #[must_use]
    pub fn signed(self, value: i32) -> Self {
        self.put(&value.to_le_bytes())
    }

    /// C `int`s.
    #[must_use]
    pub fn ints(self, values: &[usize]) -> Self {
        values.iter().fold(self, |all, &value| all.int(value))
    }

    /// A C `float`.
    #[must_use]
    pub fn float(self, value: f32) -> Self {
        self.put(&value.to_le_bytes())
    }

    /// Another structure.
    #[must_use]
    pub fn nested(mut self, other: Self) -> Self {
        let at = self.bytes.len().next_multiple_of(other.align.max(1));
        self.bytes.resize(at, 0);
        self.bytes.extend(other.bytes);
        self.align = self.align.max(other.align);
        self
    }

    /// C `long long`s.
    #[must_use]
    pub fn longs(self, values: &[usize]) -> Self {
        values
            .iter()
            .fold(self, |all, &value| all.pointer(value as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_layout_of_c() {
        let structure = Structure::new().int(1).pointer(2).int(3);
        let arguments = Arguments::new().float(1.0).structure(&structure).int(9);
        assert_eq!(arguments.sizes(), [4, 24, 4]);
        assert_eq!(arguments.words, [u64::from(1f32.to_bits()), 1, 2, 3, 9]);
        let pointers = arguments.pointers();
        assert_eq!(pointers[2], arguments.words[4..].as_ptr());
    }
}
