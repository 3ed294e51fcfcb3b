//! Data sets: how they are made and how they are read back.

pub mod arithmetic;
pub mod captioned;
pub mod emoji;
mod iconify;
