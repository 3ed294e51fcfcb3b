//! Shapes: distances, centre lines, basins and hulls of masks, and pictures seen aslant.

mod distance;
mod hull;
mod projective;
mod skeleton;
mod watershed;

pub use distance::distances;
pub use hull::{convex_hull, smallest_rectangle};
pub use projective::{Place, Projective, resampled};
pub use skeleton::skeleton;
pub use watershed::watershed;
