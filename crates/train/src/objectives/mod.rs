//! What trainings minimise, as functions of networks and noised samples; networks, loops, data and files are the
//! families'.

pub(crate) mod adversarial;
pub(crate) mod diffusion;
pub(crate) mod dmd;
pub(crate) mod ladd;
mod log_variance;
pub(crate) mod patch_gan;
pub(crate) mod perceptual;
mod scm;
mod trigflow;

pub(crate) use log_variance::LogVariance;
pub(crate) use scm::{ScmPoint, scm_loss};
pub(crate) use trigflow::{Angles, FlowNetwork, SIGMA_DATA, TrigFlow, clean, draw_angle, noised};
