//! The whole server, in process, on the models in the box.

mod errors;
mod fields;
mod harness;
mod images;
mod jobs;
mod masks;
mod security;
mod seeds;
mod service;
mod texts;
mod together;
mod videos;
