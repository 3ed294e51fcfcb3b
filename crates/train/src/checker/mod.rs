//! Which objects a picture shows, where, and in which colours: the judge of pictures of scenes.
//!
//! A small convolutional network looks at a picture on a grid of 16×16 cells and says for each how likely an
//! object's centre lies in it, which object that is and of which colour ([`SceneChecker`]). It is trained on true
//! scenes alone ([`train_checker`]), never on pictures that a model drew, and a picture passes ([`Verdict`]) where
//! everything that was asked for is there, as GenEval counts (arXiv 2310.11513).

mod degrade;
mod judging;
mod model;
mod targets;
mod training;
mod verdict;

pub use judging::SceneJudge;
pub use model::{CheckerConfig, SceneChecker};
pub use training::{CheckerReport, accuracy, train_checker};
pub use verdict::{Sighting, Verdict, certainty, judge, judge_asked};
