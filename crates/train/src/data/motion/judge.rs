//! Which motion a clip shows, by tracking what stands out from its background.

use brisk_media::Picture;
use serde::Serialize;

use super::scene::Motion;

/// Values by which a pixel must differ from the background to count, and from which it counts fully.
const DIFFERENCE: [f32; 2] = [10.0, 40.0];
/// Rays about the centre along which an object is compared with itself, and the points of each.
const RAYS: usize = 120;
const RINGS: usize = 8;
/// Farthest point of a ray, in root mean square distances from the centre.
const FARTHEST: f64 = 1.8;
/// Rays by which an object may turn from a frame to the next: 36 degrees.
const MOST_RAYS: isize = 12;
/// Where a change is as large as must be: moves and jumps in shares of the canvas, the logarithm of a ratio of sizes,
/// degrees.
const MOVED: f64 = 0.14;
const LIFTED: f64 = 0.11;
const RESIZED: f64 = 0.2;
const TURNED: f64 = 50.0;

/// What was found in a clip.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MotionVerdict {
    /// The motion that it shows most; none where nothing moves enough, or nothing is there.
    pub motion: Option<Motion>,
    /// From the first centre to the last, right and down, in shares of the canvas.
    pub moved: [f64; 2],
    /// Farthest that the centre gets above the line from the first to the last, in shares of the canvas.
    pub lifted: f64,
    /// The last size over the first.
    pub resized: f64,
    /// Degrees that it turned, clockwise.
    pub turned: f64,
}

impl MotionVerdict {
    const NOTHING: Self = Self {
        motion: None,
        moved: [0.0; 2],
        lifted: 0.0,
        resized: 1.0,
        turned: 0.0,
    };

    /// Whether it is what a caption asks for.
    pub fn shows(&self, caption: &str) -> bool {
        self.motion
            .is_some_and(|motion| motion.is_asked_by(caption))
    }
}

/// What stands out in a frame.
struct Seen {
    /// In shares of the canvas.
    centre: [f64; 2],
    /// Root mean square distance from the centre, in shares of the canvas.
    radius: f64,
    /// Differences from the background around the centre, ray by ray.
    rays: Vec<[f32; 3]>,
}

/// Tells by its frames, at least two of one size, which motion a clip shows from the first to the last.
pub fn judge(frames: &[Picture]) -> MotionVerdict {
    let seen: Option<Vec<Seen>> = frames.iter().map(look).collect();
    let Some(seen) = seen else {
        return MotionVerdict::NOTHING;
    };
    let [first, .., last] = &seen[..] else {
        return MotionVerdict::NOTHING;
    };
    let moved = [0, 1].map(|axis| last.centre[axis] - first.centre[axis]);
    let steps = (seen.len() - 1) as f64;
    let above = seen
        .iter()
        .enumerate()
        .map(|(index, seen)| first.centre[1] + moved[1] * index as f64 / steps - seen.centre[1]);
    let lifted = above.fold(0.0, f64::max);
    let resized = last.radius / first.radius;
    let turned: f64 = seen.windows(2).map(|pair| turn(&pair[0], &pair[1])).sum();
    let towards = match (moved[0].abs() > moved[1].abs(), moved) {
        (true, [x, _]) if x < 0.0 => Motion::Left,
        (true, _) => Motion::Right,
        (false, [_, y]) if y < 0.0 => Motion::Up,
        (false, _) => Motion::Down,
    };
    let size = match resized > 1.0 {
        true => Motion::Grows,
        false => Motion::Shrinks,
    };
    let found = [
        (towards, moved[0].hypot(moved[1]) / MOVED),
        (Motion::Jumps, lifted / LIFTED),
        (size, resized.ln().abs() / RESIZED),
    ];
    let most = found.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let motion = match most {
        Some((motion, amount)) if amount >= 1.0 => Some(motion),
        _ => (turned.abs() >= TURNED).then_some(Motion::Spins),
    };
    MotionVerdict {
        motion,
        moved,
        lifted,
        resized,
        turned,
    }
}

/// The colour of most of the border, channel by channel.
fn background(frame: &Picture) -> [f32; 3] {
    let (width, height) = (frame.width, frame.height);
    let border = |at: &usize| {
        let (x, y) = (at % width, at / width);
        x == 0 || y == 0 || x + 1 == width || y + 1 == height
    };
    let places: Vec<usize> = (0..width * height).filter(border).collect();
    [0, 1, 2].map(|channel| {
        let mut values: Vec<u8> = places
            .iter()
            .map(|at| frame.pixels[3 * at + channel])
            .collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().map_or(0.0, f32::from)
    })
}

/// What stands out; none where nothing does.
fn look(frame: &Picture) -> Option<Seen> {
    let (width, height) = (frame.width, frame.height);
    let behind = background(frame);
    let difference = |at: usize| {
        let pixel = &frame.pixels[3 * at..3 * at + 3];
        [0, 1, 2].map(|channel| f32::from(pixel[channel]) - behind[channel])
    };
    let share = |difference: [f32; 3]| {
        let most = difference.iter().fold(0f32, |most, d| most.max(d.abs()));
        let [none, full] = DIFFERENCE;
        f64::from(((most - none) / (full - none)).clamp(0.0, 1.0))
    };
    let place = |at: usize| {
        let (x, y) = (at % width, at / width);
        [
            (x as f64 + 0.5) / width as f64,
            (y as f64 + 0.5) / height as f64,
        ]
    };
    let mut sum = [0f64; 3];
    for at in 0..width * height {
        let (share, [x, y]) = (share(difference(at)), place(at));
        sum[0] += share;
        sum[1] += share * x;
        sum[2] += share * y;
    }
    // At least a few pixels.
    if sum[0] < 4.0 {
        return None;
    }
    let centre = [sum[1] / sum[0], sum[2] / sum[0]];
    let squares = (0..width * height).map(|at| {
        let [x, y] = place(at);
        share(difference(at)) * ((x - centre[0]).powi(2) + (y - centre[1]).powi(2))
    });
    let radius = (squares.sum::<f64>() / sum[0]).sqrt().max(1e-3);
    let mut rays = Vec::with_capacity(RAYS * RINGS);
    for ray in 0..RAYS {
        let (sin, cos) = (std::f64::consts::TAU * ray as f64 / RAYS as f64).sin_cos();
        for ring in 0..RINGS {
            let reach = radius * FARTHEST * (ring as f64 + 1.0) / RINGS as f64;
            let x = (centre[0] + reach * cos) * width as f64 - 0.5;
            let y = (centre[1] + reach * sin) * height as f64 - 0.5;
            rays.push(between(&difference, [width, height], x, y));
        }
    }
    Some(Seen {
        centre,
        radius,
        rays,
    })
}

/// A value between pixels; nothing outside.
fn between(
    value: &dyn Fn(usize) -> [f32; 3],
    [width, height]: [usize; 2],
    x: f64,
    y: f64,
) -> [f32; 3] {
    let (left, top) = (x.floor(), y.floor());
    let mut sum = [0f32; 3];
    for (column, across) in [(left, 1.0 - (x - left)), (left + 1.0, x - left)] {
        for (row, down) in [(top, 1.0 - (y - top)), (top + 1.0, y - top)] {
            if column < 0.0 || row < 0.0 || column >= width as f64 || row >= height as f64 {
                continue;
            }
            let found = value(row as usize * width + column as usize);
            for (sum, found) in sum.iter_mut().zip(found) {
                *sum += (across * down) as f32 * found;
            }
        }
    }
    sum
}

/// Degrees by which the second has turned clockwise since the first, to a part of a ray.
fn turn(first: &Seen, second: &Seen) -> f64 {
    let distance = |rays: isize| -> f64 {
        let shift = rays.rem_euclid(RAYS as isize) as usize * RINGS;
        let turned = first.rays.iter().cycle().skip(RAYS * RINGS - shift);
        let squares = turned.zip(&second.rays).map(|(a, b)| {
            let squares = a.iter().zip(b).map(|(a, b)| f64::from((a - b) * (a - b)));
            squares.sum::<f64>()
        });
        squares.sum()
    };
    let all: Vec<f64> = (-MOST_RAYS - 1..=MOST_RAYS + 1).map(distance).collect();
    let inner = 1..all.len() - 1;
    let Some(best) = inner.min_by(|a, b| all[*a].total_cmp(&all[*b])) else {
        return 0.0;
    };
    let (before, here, behind) = (all[best - 1], all[best], all[best + 1]);
    // Of the parabola through the three.
    let bend = before - 2.0 * here + behind;
    let part = match bend > 1e-9 {
        true => (0.5 * (before - behind) / bend).clamp(-0.5, 0.5),
        false => 0.0,
    };
    (best as f64 - 1.0 - MOST_RAYS as f64 + part) * 360.0 / RAYS as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::motion::MotionScene;
    use crate::data::scenes::{Drawings, Split, packages_of};

    /// Outlines of several kinds, in which no turn of less than 90 degrees is hidden.
    const BODIES: [&str; 4] = [
        r##"<path fill="#c33" d="M2 2h12v5H7v7H2z"/>"##,
        r##"<path fill="#3a6" d="M8 1l6 14H2z"/><path fill="#124" d="M7 9h2v4H7z"/>"##,
        r##"<path fill="#36c" d="M1 6h14v4H1z"/><path fill="#fc0" d="M1 6h4v4H1z"/>"##,
        r##"<path fill="#fc0" d="M1 1h14v14H1z"/>"##,
    ];

    #[test]
    fn true_clips_are_told_apart() {
        let packages = packages_of(None, |object| BODIES[object % BODIES.len()]);
        let drawings = Drawings::open(packages.path()).unwrap();
        for size in [32, 64] {
            let mut wrong = Vec::new();
            for index in 0..200 {
                let scene = MotionScene::draw(11, index, Split::Training);
                let frames = scene.render(&drawings, 17, size).unwrap();
                let verdict = judge(&frames);
                if verdict.motion != Some(scene.motion) {
                    wrong.push((scene.caption(), verdict));
                }
            }
            assert!(wrong.len() <= 4, "{wrong:?}");
        }
    }

    #[test]
    fn amounts_are_those_of_the_truth() {
        let packages = packages_of(None, |_| BODIES[0]);
        let drawings = Drawings::open(packages.path()).unwrap();
        for index in 0..60 {
            let scene = MotionScene::draw(2, index, Split::HeldOut);
            // Edges count fully, which at 64 pixels makes what is small a little larger.
            let found = judge(&scene.render(&drawings, 17, 128).unwrap());
            let reach = scene.reach;
            let off = match scene.motion {
                Motion::Jumps => found.lifted - reach,
                Motion::Left => -found.moved[0] - reach,
                Motion::Right => found.moved[0] - reach,
                Motion::Up => -found.moved[1] - reach,
                Motion::Down => found.moved[1] - reach,
                Motion::Grows | Motion::Shrinks => found.resized - reach,
                Motion::Spins => (found.turned - reach) / 360.0,
            };
            assert!(off.abs() < 0.05, "{scene:?} {found:?}");
        }
    }

    #[test]
    fn what_does_not_move_shows_nothing() {
        let blank = vec![Picture::filled(32, 32, [255; 3]); 5];
        assert_eq!(judge(&blank).motion, None);
        let packages = packages_of(None, |_| BODIES[0]);
        let drawings = Drawings::open(packages.path()).unwrap();
        let scene = MotionScene::draw(2, 0, Split::Training);
        let frame = scene.render(&drawings, 2, 32).unwrap().remove(0);
        assert_eq!(judge(&vec![frame.clone(); 9]).motion, None);
        assert_eq!(judge(&[frame]).motion, None);
        assert_eq!(judge(&[]).motion, None);
    }
}
