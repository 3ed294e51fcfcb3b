//! Pictures and clips in and out.
//!
//! Decoding (PNG, JPEG, WebP) with size limits, PNG writing with text metadata, resizing that matches
//! Pillow bit for bit, clips (GIF, animated PNG, animated WebP), bilinear interpolation that matches torch, PSNR and SSIM, contact sheets, SVG
//! rendering and line charts. Pictures here are 8-bit RGB and know nothing of tensors or models.
//!
//! ```
//! use brisk_media::{Filter, Picture, encode_png, resize_pil};
//! let picture = Picture::filled(64, 48, [200, 30, 30]);
//! let small = resize_pil(&picture, 32, 24, Filter::Bicubic)?;
//! let file = encode_png(&small, &[("prompt".into(), "a red wall".into())])?;
//! assert_eq!(&file[1..4], b"PNG");
//! # Ok::<(), brisk_media::Error>(())
//! ```
#![forbid(unsafe_code)]

mod chart;
mod clip;
mod clip_writer;
mod decode;
mod encode;
mod error;
mod letters;
pub mod mask;
mod metrics;
mod picture;
mod png_file;
mod png_rows;
mod resize;
pub mod shape;
mod sheet;
mod structure;
pub mod svg;
mod tiles;

pub use chart::{LineChart, Mark, Series, line_chart_svg};
pub use clip::{Clip, MAX_FRAMES, decode_clip, read_clip};
pub use clip_writer::{ClipShape, Frames};
pub use decode::{decode_picture, decoding_bytes, picture_size, read_picture};
pub use encode::{encode_jpeg, encode_webp};
pub use error::{Error, Result};
pub use letters::{Letter, MAX_EM, Typeface};
pub use mask::Mask;
pub use metrics::{psnr, ssim};
pub use picture::{MAX_SIDE, Picture, byte_to_signed, signed_to_byte};
pub use png_file::{encode_png, read_png_metadata};
pub use resize::{Filter, interpolate_bilinear, interpolated_rows, resize_pil};
pub use sheet::contact_sheet;
pub use svg::{Cutout, render_svg, render_svg_cutout};
pub use tiles::{tile, tiled};
