//! The first frame of a clip.

use brisk_media::{Filter, Picture, resize_pil};
use brisk_pipelines::options::{Options, keys};
use brisk_pipelines::{
    Control, Error, FirstFrame, FramePlace, ImageModel, ImagePlan, ImageRequest, Result,
    ResultKind, registry,
};

/// The first frame of a clip of `width` x `height` pixels, drawn by a model of pictures in the box, in a folder or by hub id.
///
/// # Errors
/// No such model, or what it refuses.
pub fn draw_first_frame(
    model: Option<&str>,
    frame: &FirstFrame,
    size: (usize, usize),
    seed: u64,
    control: &Control,
) -> Result<Picture> {
    let found = crate::find(
        model,
        None,
        ResultKind::Pictures,
        &brisk_store::hub::NoProgress,
    )?;
    let mut drawer: Box<dyn ImageModel> =
        registry::open_image(&found.folder, &crate::settings(Options::new()))?;
    let plan = plan_first_frame(&*drawer, frame, size, seed)?;
    let images = drawer.generate(&plan, control)?;
    let first = images.into_iter().next();
    let picture = first
        .map(|image| image.picture)
        .ok_or_else(|| Error::folder(found.name, "it drew nothing"))?;
    place_first_frame(picture, frame, size)
}

/// What `drawer` is asked for: a picture of the frame's prompt, of the clip's size where that is about its usual one, else of
/// that.
///
/// # Errors
/// What the model refuses.
pub fn plan_first_frame(
    drawer: &dyn ImageModel,
    frame: &FirstFrame,
    (width, height): (usize, usize),
    seed: u64,
) -> Result<ImagePlan> {
    let own = ImageRequest::new(&frame.prompt).with(&keys::SEED, seed);
    let sized = own
        .clone()
        .with(&keys::WIDTH, width)
        .with(&keys::HEIGHT, height);
    match drawer.plan(&sized) {
        Ok(plan) if near((width, height), drawer.usual_size()) => Ok(plan),
        _ => drawer.plan(&own),
    }
}

/// The first frame with a picture that was drawn for it: one that has a place in the frame comes there, and what is around it
/// has the mean colour of the picture's edge.
///
/// # Errors
/// A picture that cannot be resized.
pub fn place_first_frame(
    picture: Picture,
    frame: &FirstFrame,
    (width, height): (usize, usize),
) -> Result<Picture> {
    match &frame.place {
        None => Ok(picture),
        Some(place) => placed(&picture, place, width, height),
    }
}

/// Whether a model that draws pictures of this usual size draws about as well in this one: it draws nothing good in much
/// larger ones, nor in much smaller ones.
fn near((width, height): (usize, usize), usual: (usize, usize)) -> bool {
    let (area, own) = (width * height, usual.0 * usual.1);
    2 * own >= area && 3 * area >= own
}

/// A frame with the picture at its place.
fn placed(picture: &Picture, place: &FramePlace, width: usize, height: usize) -> Result<Picture> {
    let longest = picture.width.max(picture.height) as f64;
    let scale = place.side * width.min(height) as f64 / longest;
    let [across, down] = [picture.width, picture.height]
        .map(|length| ((length as f64 * scale).round() as usize).max(1));
    let small = resize_pil(picture, across, down, Filter::Lanczos)?;
    let mut frame = Picture::filled(width, height, edge_colour(picture));
    // It stays within the frame.
    let [left, top] = [(width, across, 0), (height, down, 1)].map(|(room, length, axis)| {
        let start = place.centre[axis] * room as f64 - length as f64 / 2.0;
        (start.round().max(0.0) as usize).min(room - length.min(room))
    });
    frame.paste(&small, left, top);
    Ok(frame)
}

/// Mean colour of a picture's outermost pixels.
fn edge_colour(picture: &Picture) -> [u8; 3] {
    let (right, bottom) = (picture.width - 1, picture.height - 1);
    let rows = (0..picture.width).flat_map(|x| [(x, 0), (x, bottom)]);
    let columns = (0..picture.height).flat_map(|y| [(0, y), (right, y)]);
    let (mut sums, mut count) = ([0u64; 3], 0);
    for pixel in rows.chain(columns).filter_map(|(x, y)| picture.pixel(x, y)) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += u64::from(value);
        }
        count += 1;
    }
    sums.map(|sum| ((sum + count / 2) / count.max(1)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_other_sizes_are_drawn_at_the_usual_one() {
        assert!(near((960, 544), (1024, 1024)) && near((128, 128), (128, 128)));
        assert!(!near((64, 64), (128, 128)) && !near((960, 544), (128, 128)));
    }

    #[test]
    fn a_picture_comes_to_its_place_and_stays_in_the_frame() {
        let mut picture = Picture::filled(8, 8, [200, 10, 20]);
        for x in 2..6 {
            for y in 2..6 {
                picture.pixels[3 * (8 * y + x)..][..3].copy_from_slice(&[0, 0, 255]);
            }
        }
        let at = |centre: [f64; 2]| placed(&picture, &FramePlace { centre, side: 0.5 }, 32, 16);
        let frame = at([0.75, 0.5]).unwrap();
        assert_eq!((frame.width, frame.height), (32, 16));
        assert_eq!(frame.pixel(24, 8), Some([0, 0, 255]));
        assert_eq!(frame.pixel(3, 3), Some([200, 10, 20]));
        let blue = |frame: &Picture| {
            let pixels = frame.pixels.chunks_exact(3);
            pixels.filter(|pixel| pixel[2] == 255).count()
        };
        assert_eq!(blue(&frame), 16);
        for corner in [[0.0, 0.0], [1.0, 1.0]] {
            assert_eq!(blue(&at(corner).unwrap()), 16);
        }
    }
}
