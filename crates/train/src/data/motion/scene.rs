//! A clip before it is drawn: what is in it, and what it does.

use serde::{Deserialize, Serialize};

use crate::data::is_set_aside;
use crate::data::pictures::PictureSet;
use crate::data::scenes::{Colour, Split, all_objects, with_article};
use crate::rng::Rng;

/// What an object does from the first frame to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Motion {
    /// Goes up and comes down again.
    Jumps,
    /// Moves to the left.
    Left,
    /// Moves to the right.
    Right,
    /// Moves up.
    Up,
    /// Moves down.
    Down,
    /// Gets larger.
    Grows,
    /// Gets smaller.
    Shrinks,
    /// Turns about its centre, clockwise.
    Spins,
}

impl Motion {
    /// All of them.
    pub const ALL: [Motion; 8] = [
        Motion::Jumps,
        Motion::Left,
        Motion::Right,
        Motion::Up,
        Motion::Down,
        Motion::Grows,
        Motion::Shrinks,
        Motion::Spins,
    ];

    /// As it ends a caption.
    pub fn words(self) -> &'static str {
        match self {
            Motion::Jumps => "jumps",
            Motion::Left => "moves left",
            Motion::Right => "moves right",
            Motion::Up => "moves up",
            Motion::Down => "moves down",
            Motion::Grows => "grows",
            Motion::Shrinks => "shrinks",
            Motion::Spins => "spins",
        }
    }

    /// Whether it goes somewhere.
    fn is_move(self) -> bool {
        matches!(
            self,
            Motion::Left | Motion::Right | Motion::Up | Motion::Down
        )
    }

    /// Whether a clip that shows it does what the caption says.
    pub fn is_asked_by(self, caption: &str) -> bool {
        caption.ends_with(self.words()) || (self.is_move() && caption.ends_with(SOMEWHERE))
    }

    /// How captions end.
    pub fn endings() -> Vec<&'static str> {
        let told = Self::ALL.into_iter().map(Self::words);
        told.chain([SOMEWHERE]).collect()
    }

    /// How captions end, and where the object is in the middle of the first frames of such clips.
    pub fn usual_starts() -> Vec<(&'static str, Pose)> {
        let start = |motion: Self, told: bool| {
            let middle = &mut |low, high| 0.5 * (low + high);
            motion.laid_out(told, middle).0
        };
        let told = Self::ALL.map(|motion| (motion.words(), start(motion, true)));
        let any = (SOMEWHERE, start(Motion::Left, false));
        told.into_iter().chain([any]).collect()
    }

    /// A first pose and how far it gets, each number chosen between two, so that it stays inside the canvas; one that moves
    /// and is not told where to begins in the middle, so that the first frame does not tell it either.
    fn laid_out(self, told: bool, between: &mut dyn FnMut(f64, f64) -> f64) -> (Pose, f64) {
        let (side, reach) = match self {
            Motion::Grows | Motion::Shrinks => {
                let (largest, ratio) = (between(0.7, 0.9), between(1.5, 1.9));
                match self {
                    Motion::Grows => (largest / ratio, ratio),
                    _ => (largest, 1.0 / ratio),
                }
            }
            Motion::Spins => (between(0.5, 0.75), between(90.0, 150.0)),
            Motion::Jumps => (between(0.42, 0.6), between(0.2, 0.34)),
            _ if !told => (between(0.36, 0.46), between(0.2, 0.26)),
            _ => (between(0.42, 0.6), between(0.24, 0.38)),
        };
        // Room on the left, the right, above and below the first centre.
        let half = match self {
            Motion::Grows => side * reach / 2.0,
            Motion::Spins => side * CIRCLE / 2.0,
            _ => side / 2.0,
        };
        let [mut left, mut right, mut above, mut below] = [half; 4];
        match self {
            _ if !told => {
                let sides = [&mut left, &mut right, &mut above, &mut below];
                sides.into_iter().for_each(|room| *room += reach);
            }
            Motion::Left => left += reach,
            Motion::Right => right += reach,
            Motion::Up | Motion::Jumps => above += reach,
            Motion::Down => below += reach,
            Motion::Grows | Motion::Shrinks | Motion::Spins => {}
        }
        let centre = [between(left, 1.0 - right), between(above, 1.0 - below)];
        let pose = Pose {
            centre,
            side,
            angle: 0.0,
        };
        (pose, reach)
    }

    /// The motion of these words, if there is one.
    pub fn of_words(words: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|motion| motion.words() == words)
    }
}

/// Where an object is in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pose {
    /// Its centre from the left upper corner, in shares of the canvas.
    pub centre: [f64; 2],
    /// Side of the square that it is drawn in, in shares of the canvas.
    pub side: f64,
    /// Degrees that it is turned, clockwise.
    pub angle: f64,
}

/// A clip of one object and one motion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MotionScene {
    /// Which of [`all_objects`].
    pub object: usize,
    /// Whose drawing.
    pub set: PictureSet,
    /// The colour it was given; its own if none.
    pub colour: Option<Colour>,
    /// What it does.
    pub motion: Motion,
    /// Whether its caption says which way it moves.
    pub told: bool,
    /// Colour of everything behind it.
    pub background: [u8; 3],
    /// Where it is in the first frame.
    pub start: Pose,
    /// How far it gets: shares of the canvas for a jump or a move, the ratio of sides for growing and shrinking, degrees
    /// for spinning.
    pub reach: f64,
}

/// One pair of object and motion in this many is held out.
const HELD_OUT_EVERY: u64 = 10;
/// How the caption of a clip ends whose object moves, where it does not say which way.
const SOMEWHERE: &str = "moves";
/// Share of the clips with such a motion whose captions do not say which way: what a text leaves open is what few steps
/// of a solver average.
const UNTOLD: f64 = 0.6;
/// Share of clips whose object is in a colour that its caption names.
const COLOURED: f64 = 0.3;
/// Colours behind objects.
const BACKGROUNDS: [[u8; 3]; 5] = [
    [255, 255, 255],
    [226, 238, 248],
    [246, 236, 218],
    [226, 240, 224],
    [238, 228, 244],
];
/// How much larger than its square an object's circle is.
const CIRCLE: f64 = 1.2;

fn between(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.uniform()
}

impl MotionScene {
    /// The `index`-th clip of a seed, in a part of the split.
    pub fn draw(seed: u64, index: u64, split: Split) -> Self {
        let rng = &mut Rng::stream(seed, index);
        loop {
            let (object, motion) = (
                rng.below(all_objects().count()),
                rng.below(Motion::ALL.len()),
            );
            let motion = Motion::ALL[motion];
            if is_held_out(object, motion) == (split == Split::HeldOut) {
                return Self::laid_out(rng, object, motion);
            }
        }
    }

    /// With everything else drawn by lot, inside the canvas from the first frame to the last.
    fn laid_out(rng: &mut Rng, object: usize, motion: Motion) -> Self {
        let set = PictureSet::ALL[rng.below(PictureSet::ALL.len())];
        let colour = rng
            .chance(COLOURED)
            .then(|| Colour::ALL[rng.below(Colour::ALL.len())]);
        let background = BACKGROUNDS[rng.below(BACKGROUNDS.len())];
        let told = !(motion.is_move() && rng.chance(UNTOLD));
        let (start, reach) = motion.laid_out(told, &mut |low, high| between(rng, low, high));
        Self {
            object,
            set,
            colour,
            motion,
            told,
            background,
            start,
            reach,
        }
    }

    /// What it shows, in words.
    pub fn caption(&self) -> String {
        let word = word(self.object);
        let what = match self.colour {
            Some(colour) => with_article(&format!("{} {word}", colour.word())),
            None => with_article(word),
        };
        let does = if self.told {
            self.motion.words()
        } else {
            SOMEWHERE
        };
        format!("{what} {does}")
    }

    /// Where the object is when the share `progress`, 0 to 1, of the clip is over.
    pub fn pose(&self, progress: f64) -> Pose {
        let mut pose = self.start;
        let way = self.reach * progress;
        match self.motion {
            Motion::Jumps => pose.centre[1] -= 4.0 * way * (1.0 - progress),
            Motion::Left => pose.centre[0] -= way,
            Motion::Right => pose.centre[0] += way,
            Motion::Up => pose.centre[1] -= way,
            Motion::Down => pose.centre[1] += way,
            Motion::Grows | Motion::Shrinks => pose.side *= self.reach.powf(progress),
            Motion::Spins => pose.angle += way,
        }
        pose
    }

    /// The pose in each of so many frames.
    pub fn poses(&self, frames: usize) -> Vec<Pose> {
        let last = frames.saturating_sub(1).max(1) as f64;
        (0..frames)
            .map(|frame| self.pose(frame as f64 / last))
            .collect()
    }
}

/// The word of an object.
fn word(object: usize) -> &'static str {
    all_objects()
        .nth(object)
        .map_or("thing", |object| object.word)
}

/// Whether no model is trained on this pair.
fn is_held_out(object: usize, motion: Motion) -> bool {
    let pair = format!("{} {}", word(object), motion.words());
    is_set_aside(&pair, HELD_OUT_EVERY)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn clips_stay_on_the_canvas_and_repeat() {
        let mut seen = HashSet::new();
        for index in 0..800 {
            let scene = MotionScene::draw(3, index, Split::Training);
            assert_eq!(scene, MotionScene::draw(3, index, Split::Training));
            for pose in scene.poses(17) {
                for along in pose.centre {
                    let half = pose.side / 2.0 - 1e-9;
                    assert!(along - half >= 0.0 && along + half <= 1.0, "{scene:?}");
                }
            }
            assert!(scene.motion.is_asked_by(&scene.caption()));
            seen.insert((scene.motion, scene.told));
        }
        // Moves are told or not, other motions are told.
        assert_eq!(seen.len(), Motion::ALL.len() + 4);
    }

    #[test]
    fn what_is_asked_is_what_the_caption_leaves_open() {
        let asked = |caption: &str| -> Vec<Motion> {
            let all = Motion::ALL.into_iter();
            all.filter(|motion| motion.is_asked_by(caption)).collect()
        };
        assert_eq!(asked("a cat moves left"), [Motion::Left]);
        assert_eq!(asked("a cat moves").len(), 4);
        assert_eq!(asked("a cat spins"), [Motion::Spins]);
        let starts = Motion::usual_starts();
        assert_eq!(starts.len(), Motion::endings().len());
        let (ending, start) = starts[starts.len() - 1];
        assert_eq!((ending, start.centre), ("moves", [0.5; 2]));
    }

    #[test]
    fn pairs_that_are_held_out_never_occur_in_training() {
        let pairs = |split: Split| -> HashSet<(usize, Motion)> {
            let scenes = (0..4000).map(|index| MotionScene::draw(1, index, split));
            scenes.map(|scene| (scene.object, scene.motion)).collect()
        };
        let (training, held_out) = (pairs(Split::Training), pairs(Split::HeldOut));
        assert!(training.is_disjoint(&held_out));
        let objects: HashSet<usize> = training.iter().map(|(object, _)| *object).collect();
        assert_eq!(objects.len(), all_objects().count());
        assert!((30..100).contains(&held_out.len()), "{}", held_out.len());
    }

    #[test]
    fn poses_do_what_the_caption_says() {
        let at = |motion: Motion, progress: f64| {
            let scene = MotionScene::laid_out(&mut Rng::new(4), 0, motion);
            (scene.start, scene.pose(progress), scene.reach)
        };
        let (start, top, reach) = at(Motion::Jumps, 0.5);
        assert!((start.centre[1] - top.centre[1] - reach).abs() < 1e-12);
        let (start, end, _) = at(Motion::Jumps, 1.0);
        assert!((start.centre[1] - end.centre[1]).abs() < 1e-12);
        let (start, end, reach) = at(Motion::Shrinks, 1.0);
        assert!((end.side / start.side - reach).abs() < 1e-12 && reach < 1.0);
        let (_, end, reach) = at(Motion::Spins, 1.0);
        assert_eq!(end.angle, reach);
    }
}
