//! Claims of papers that are measured on models of the family.

mod steps;
mod svdquant;

pub(super) use steps::SANA;
pub(super) use svdquant::SVDQUANT;
