//! Runs the real binary from a temporary folder: stdout, stderr, exit code, files.

mod bad_input;
mod batch;
mod bench;
mod best_of;
#[cfg(feature = "clouds")]
mod bucket;
mod checked_first;
mod classes;
mod depth;
mod device;
mod files;
mod fleet;
mod harness;
mod hart;
mod hub;
mod image;
mod masks;
mod messages;
mod probe;
mod quantize;
mod recorded;
mod serve;
mod text;
mod tools;
mod toy;
mod training;
mod video;
mod vila_u;
mod warnings;
