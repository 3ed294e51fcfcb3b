//! VILA-U's language model, projector and depth transformer, trained together on pictures and texts (arXiv
//! 2409.04429, sections 3.2 and 3.3).
//!
//! Every picture is encoded once, by a frozen vision tower. A sample is a conversation with one picture: either the
//! picture answers a caption, and the depth transformer learns its codes from the hidden states before its places, or
//! a text answers a question about the picture. Some captions are left out, so that drawing can be guided; the
//! authors' published code leaves none out, though they guide. Conversations are those that inference begins.

mod conversation;
mod exam;
mod export;
mod lessons;
mod networks;
mod objective;
mod recipe;
mod scores;
mod start;
mod tower_files;
mod training;
mod vocabulary;

pub use recipe::{DepthSizes, JointRecipe};
pub use start::{JointStart, open_joint_start};
pub use tower_files::TowerFiles;
pub use training::{JointReport, train_joint};
