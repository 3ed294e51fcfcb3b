//! Runs the real binary from a temporary folder: stdout, stderr, exit code, files.

mod bad_input;
mod bench;
mod checked_first;
mod device;
mod files;
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
mod vila_u;
mod warnings;
