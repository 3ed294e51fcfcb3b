//! What lies behind text.

use brisk_media::Picture;

use crate::rng::Rng;

/// A gradient, smooth noise, a pattern of tiles, or one colour with a panel on it.
pub(super) fn background(size: [usize; 2], rng: &mut Rng) -> Picture {
    let [width, height] = size;
    let mut picture = Picture::filled(width, height, colour(rng));
    match rng.below(4) {
        0 => gradient(&mut picture, rng),
        1 => clouds(&mut picture, rng),
        2 => tiles(&mut picture, rng),
        _ => panel(&mut picture, rng),
    }
    picture
}

pub(super) fn colour(rng: &mut Rng) -> [u8; 3] {
    [(); 3].map(|()| rng.below(256) as u8)
}

/// Brightness of a colour (BT.601), 0 to 255.
pub(super) fn brightness(colour: [u8; 3]) -> f64 {
    let [r, g, b] = colour.map(f64::from);
    0.299 * r + 0.587 * g + 0.114 * b
}

fn mixed(a: [u8; 3], b: [u8; 3], share: f64) -> [u8; 3] {
    let mix = |a: u8, b: u8| (f64::from(a) * (1.0 - share) + f64::from(b) * share) as u8;
    [mix(a[0], b[0]), mix(a[1], b[1]), mix(a[2], b[2])]
}

fn paint(picture: &mut Picture, colour: impl Fn(f64, f64) -> [u8; 3]) {
    let width = picture.width;
    for (at, pixel) in picture.pixels.chunks_exact_mut(3).enumerate() {
        pixel.copy_from_slice(&colour((at % width) as f64, (at / width) as f64));
    }
}

fn gradient(picture: &mut Picture, rng: &mut Rng) {
    let (from, to) = (colour(rng), colour(rng));
    let (sin, cos) = (std::f64::consts::TAU * rng.uniform()).sin_cos();
    let reach = (picture.width as f64 * cos).abs() + (picture.height as f64 * sin).abs();
    let middle = [picture.width as f64 / 2.0, picture.height as f64 / 2.0];
    paint(picture, |x, y| {
        let along = (x - middle[0]) * cos + (y - middle[1]) * sin;
        mixed(from, to, (along / reach.max(1.0) + 0.5).clamp(0.0, 1.0))
    });
}

/// Three octaves of values between which is interpolated.
fn clouds(picture: &mut Picture, rng: &mut Rng) {
    const SIDE: usize = 17;
    let (from, to) = (colour(rng), colour(rng));
    let values: Vec<f64> = (0..SIDE * SIDE).map(|_| rng.uniform()).collect();
    let cell = picture.width.max(picture.height) as f64 / (2.0 + 2.0 * rng.uniform());
    let noise = |x: f64, y: f64| {
        let (column, row) = (x.floor(), y.floor());
        let smooth = |t: f64| t * t * (3.0 - 2.0 * t);
        let (right, lower) = (smooth(x - column), smooth(y - row));
        let value = |dx: usize, dy: usize| {
            let wrapped = |at: f64, more: usize| (at as usize + more) % SIDE;
            values[wrapped(row, dy) * SIDE + wrapped(column, dx)]
        };
        let line = |dy: usize| value(0, dy) * (1.0 - right) + value(1, dy) * right;
        line(0) * (1.0 - lower) + line(1) * lower
    };
    paint(picture, |x, y| {
        let octave = |factor: f64| noise(factor * x / cell, factor * y / cell) / factor;
        mixed(from, to, (octave(1.0) + octave(2.0) + octave(4.0)) / 1.75)
    });
}

fn tiles(picture: &mut Picture, rng: &mut Rng) {
    let (face, seam) = (colour(rng), colour(rng));
    // Seams are near the tiles' colour: text is to be found, not they.
    let seam = mixed(face, seam, 0.3);
    let longest = picture.width.max(picture.height) as f64;
    let wide = longest / (3.0 + 6.0 * rng.uniform());
    let (high, thick) = (wide * (0.4 + 0.6 * rng.uniform()), 1.0 + wide / 20.0);
    let shifted = rng.chance(0.5);
    paint(picture, |x, y| {
        let row = (y / high).floor();
        let x = if shifted && row % 2.0 == 1.0 {
            x + wide / 2.0
        } else {
            x
        };
        match x % wide < thick || y % high < thick {
            true => seam,
            false => face,
        }
    });
}

fn panel(picture: &mut Picture, rng: &mut Rng) {
    let (wall, sign) = (colour(rng), colour(rng));
    let part = |rng: &mut Rng, side: usize| side as f64 * 0.15 * rng.uniform();
    let (left, top) = (part(rng, picture.width), part(rng, picture.height));
    let right = picture.width as f64 - part(rng, picture.width);
    let bottom = picture.height as f64 - part(rng, picture.height);
    paint(picture, |x, y| {
        match (left..right).contains(&x) && (top..bottom).contains(&y) {
            true => sign,
            false => wall,
        }
    });
}
