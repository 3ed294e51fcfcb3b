//! The errors of this crate.

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read, or is not what its name says.
    #[error(transparent)]
    File(#[from] brisk_store::Error),
    /// The bytes are not a picture that can be decoded.
    #[error("{label}: cannot decode this picture: {reason}")]
    Decode {
        /// File name or other description of the bytes.
        label: String,
        /// The decoder's reason.
        reason: String,
    },
    /// The picture's sides are zero or over the limit.
    #[error(
        "{label}: {width}x{height} pixels; each side must be 1 to {limit} and the area at most {area} pixels"
    )]
    Size {
        /// File name or other description.
        label: String,
        /// Found width in pixels.
        width: u64,
        /// Found height in pixels.
        height: u64,
        /// Largest allowed side in pixels.
        limit: usize,
        /// Largest allowed area in pixels.
        area: usize,
    },
    /// The number of bytes does not fit the picture's size.
    #[error("{found} bytes of pixels for a {width}x{height} RGB picture, expected {expected}")]
    PixelCount {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// Two pictures that are compared differ in size.
    #[error("pictures differ in size: {0}x{1} and {2}x{3}; resize one of them first")]
    Mismatch(usize, usize, usize, usize),
    /// The SVG text cannot be rendered.
    #[error("cannot render this SVG: {0}")]
    Svg(String),
    /// PNG data cannot be written or its metadata cannot be read.
    #[error("PNG: {0}")]
    Png(String),
    /// A picture cannot be written as JPEG or WebP.
    #[error("cannot encode this picture: {0}")]
    Encode(String),
    /// An argument makes no sense.
    #[error("{0}")]
    Argument(String),
}
