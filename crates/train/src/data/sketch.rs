//! Sketches of pictures: their outlines as white strokes on black, as ControlNets of scribbles are shown them.

use brisk_media::Picture;

/// Least difference of a picture's values over two pixels that is an outline, summed over red, green and blue.
const LEAST: i32 = 96;
/// Thickness of strokes, in shares of a picture's side: 24 pixels of 1024, as SANA's authors draw them at most.
pub(crate) const MOST_THICKNESS: f64 = 24.0 / 1024.0;

/// Where a picture's colours change, in strokes of this thickness in pixels; 0 and 1 leave outlines as they are found, one
/// or two pixels thick.
pub(crate) fn sketch(picture: &Picture, thickness: usize) -> Picture {
    let (width, height) = (picture.width, picture.height);
    let outline: Vec<bool> = (0..width * height)
        .map(|at| is_outline(picture, at % width, at / width))
        .collect();
    let reach = thickness as i64 / 2;
    let mut drawn = Picture::filled(width, height, [0; 3]);
    for (at, _) in outline.iter().enumerate().filter(|(_, found)| **found) {
        let (x, y) = ((at % width) as i64, (at / width) as i64);
        for down in -reach..=reach {
            for right in -reach..=reach {
                let (x, y) = (x + right, y + down);
                let inside = (0..width as i64).contains(&x) && (0..height as i64).contains(&y);
                if inside && right * right + down * down <= reach * reach {
                    let place = 3 * (y as usize * width + x as usize);
                    drawn.pixels[place..place + 3].fill(255);
                }
            }
        }
    }
    drawn
}

/// Whether colours differ much on both sides of a pixel, along a row or a column.
fn is_outline(picture: &Picture, x: usize, y: usize) -> bool {
    let value = |x: usize, y: usize, channel: usize| {
        i32::from(picture.pixels[3 * (y * picture.width + x) + channel])
    };
    let (left, right) = (x.saturating_sub(1), (x + 1).min(picture.width - 1));
    let (above, below) = (y.saturating_sub(1), (y + 1).min(picture.height - 1));
    let change = |from: (usize, usize), to: (usize, usize)| -> i32 {
        let channels = 0..3;
        channels
            .map(|channel| (value(to.0, to.1, channel) - value(from.0, from.1, channel)).abs())
            .sum()
    };
    change((left, y), (right, y)).max(change((x, above), (x, below))) >= LEAST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlines_are_where_colours_change() {
        let mut picture = Picture::filled(12, 12, [250, 240, 230]);
        for y in 4..8 {
            for x in 3..9 {
                picture.pixels[3 * (12 * y + x)..][..3].copy_from_slice(&[200, 20, 30]);
            }
        }
        let thin = sketch(&picture, 1);
        let white = |drawn: &Picture, x: usize, y: usize| {
            let pixel = &drawn.pixels[3 * (12 * y + x)..][..3];
            assert!(pixel == [0; 3] || pixel == [255; 3]);
            pixel[0] == 255
        };
        // Both sides of the border, but neither the middle nor far outside.
        for (x, y, found) in [
            (3, 5, true),
            (2, 5, true),
            (5, 4, true),
            (5, 5, false),
            (0, 0, false),
            (11, 5, false),
        ] {
            assert_eq!(white(&thin, x, y), found, "{x}, {y}");
        }
        let thick = sketch(&picture, 5);
        assert!(white(&thick, 0, 5) && white(&thick, 5, 5) && !white(&thick, 11, 11));
        // Shades of a gradient are no outlines.
        let mut even = Picture::filled(12, 12, [0; 3]);
        for (at, value) in even.pixels.iter_mut().enumerate() {
            *value = (at / 3 % 12 * 8) as u8;
        }
        assert!(sketch(&even, 3).pixels.iter().all(|value| *value == 0));
        assert!(
            sketch(&Picture::filled(1, 1, [9; 3]), 3)
                .pixels
                .iter()
                .all(|value| *value == 0)
        );
    }
}
