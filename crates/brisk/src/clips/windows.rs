//! Clips longer than one run of a model: each run begins with a frame of the one before.
//!
//! What is done lies in a folder until the clip is written, a folder of frames a run: memory does not grow with the
//! clip, and a killed command goes on where it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use brisk_media::{Clip, ClipShape, Picture, encode_png, read_picture};
use brisk_pipelines::options::{keys, video_keys};
use brisk_pipelines::{Control, Error, Event, Result, VideoModel, VideoPlan, VideoRequest};
use brisk_store::output::{FolderLock, TemporaryFolder};
use brisk_store::{Fingerprint, write_atomic};
use serde_json::{Value, json};

use super::file::describe_clip;

/// What is being made, in its folder.
const REQUEST_FILE: &str = "clip.json";
/// Most runs of a clip.
const MOST: usize = 10_000;

/// How a clip is made of several runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Runs of the model.
    pub count: usize,
    /// Last frames of a run that the next one makes anew; they are blended into one another.
    pub overlap: usize,
    /// Give each run's first frame the mean and spread of the clip's first frame, colour by colour.
    pub match_colours: bool,
    /// Show the text encoder the clip's first frame in every run, not the run's own.
    pub keep_prompt_image: bool,
}

/// A clip whose runs are done.
#[derive(Debug)]
pub struct LongClip {
    folder: PathBuf,
    /// Frames of each run, those that repeat the one before left out.
    lengths: Vec<usize>,
    overlap: usize,
    shape: ClipShape,
    _lock: FolderLock,
}

impl Windows {
    /// Makes the runs of a clip in `folder`, beside its result; those that are there already are kept. Run `k` draws from
    /// the seed plus `k`.
    ///
    /// # Errors
    /// What cannot be asked for, by the option's name; a folder of another clip or in use; what the model refuses;
    /// [`Error::Cancelled`], after which the same call goes on.
    pub fn make(
        &self,
        model: &mut dyn VideoModel,
        (request, name): (&VideoRequest, &str),
        folder: &Path,
        control: &Control,
    ) -> Result<LongClip> {
        let plan = self.check(model, request)?;
        let own = plan.frames - plan.given_frames;
        let description = self.described(&plan, name);
        let shown = folder.display().to_string();
        let io = |error: std::io::Error| Error::folder(&shown, error.to_string());
        std::fs::create_dir_all(folder).map_err(io)?;
        let lock = FolderLock::take(folder)?;
        let file = folder.join(REQUEST_FILE);
        match std::fs::read(&file) {
            Ok(found)
                if serde_json::from_slice::<Value>(&found).ok().as_ref() == Some(&description) => {}
            Ok(_) => {
                return Err(Error::folder(
                    &shown,
                    "holds the beginning of another clip; remove it, or name another output",
                ));
            }
            Err(_) => write_atomic(&file, format!("{description:#}\n").as_bytes())?,
        }
        let mut first = true;
        for window in 0..self.count {
            let target = window_folder(folder, window);
            if target.is_dir() {
                continue;
            }
            if first && window > 0 {
                control.send(Event::Resumed {
                    step: window as u64,
                });
            }
            first = false;
            let asked = self.request(request, folder, window, own)?;
            let plan = model.plan(&asked)?;
            let made = model.generate(&plan, control)?;
            keep(
                &target,
                &made.clip,
                if window == 0 { 0 } else { plan.given_frames },
            )?;
            control.send(Event::Saved {
                step: window as u64 + 1,
            });
        }
        let mut lengths = vec![own; self.count];
        lengths[0] = plan.frames;
        let frames = lengths.iter().sum::<usize>() - (self.count - 1) * self.overlap;
        Ok(LongClip {
            folder: folder.to_owned(),
            lengths,
            overlap: self.overlap,
            shape: ClipShape {
                size: [plan.width, plan.height],
                frames,
                rate: plan.rate,
            },
            _lock: lock,
        })
    }

    /// The plan of the first run, if all of them can be made.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn check(&self, model: &dyn VideoModel, request: &VideoRequest) -> Result<VideoPlan> {
        if !(1..=MOST).contains(&self.count) {
            return Err(Error::request(
                "windows",
                format!("{} is outside 1..={MOST}", self.count),
            ));
        }
        if self.count > 1 && !model.needs_image() {
            let message =
                "this model begins with no picture, so that nothing leads from one run to the next";
            return Err(Error::request("windows", message));
        }
        if self.count > 1 && request.options.has(video_keys::LATENTS.definition()) {
            let message = "is the noise of one run; leave it out, or make one window";
            return Err(Error::request(video_keys::LATENTS.name(), message));
        }
        let plan = model.plan(request)?;
        let own = plan.frames - plan.given_frames;
        // The frame that the next run begins with is one of the run's own.
        if self.count > 1 && self.overlap >= own {
            let message = format!(
                "{} frames of the {own} that a run adds; expected fewer",
                self.overlap
            );
            return Err(Error::request("overlap", message));
        }
        Ok(plan)
    }

    fn described(&self, plan: &VideoPlan, name: &str) -> Value {
        let mut description = describe_clip(plan, name);
        let image = plan.request.options.get(&video_keys::IMAGE);
        // Pictures that were drawn have no file's name.
        description["image_hash"] = json!(image.map(|image| {
            let mut hash = Fingerprint::default();
            hash.add(&image.pixels);
            hash.text()
        }));
        description["windows"] = json!(self.count);
        description["overlap"] = json!(self.overlap);
        description["match_colours"] = json!(self.match_colours);
        description["keep_prompt_image"] = json!(self.keep_prompt_image);
        description
    }

    /// The request of a run.
    fn request(
        &self,
        request: &VideoRequest,
        folder: &Path,
        window: usize,
        own: usize,
    ) -> Result<VideoRequest> {
        let mut asked = request.clone();
        let seed = request.options.get(&keys::SEED).unwrap_or(0);
        asked
            .options
            .set(&keys::SEED, seed.wrapping_add(window as u64));
        let given = request.options.get(&video_keys::IMAGE);
        let (Some(given), true) = (given, window > 0) else {
            return Ok(asked);
        };
        let before = window_folder(folder, window - 1);
        let length = match window {
            // The first run's given frames count, too.
            1 => count_frames(&before)?,
            _ => own,
        };
        let mut next = read_picture(&frame_file(&before, length - 1 - self.overlap))?;
        if self.match_colours {
            let first = read_picture(&frame_file(&window_folder(folder, 0), 0))?;
            match_colours(&mut next, &first);
        }
        if self.keep_prompt_image && !request.options.has(video_keys::PROMPT_IMAGE.definition()) {
            asked.options.set(&video_keys::PROMPT_IMAGE, given);
        }
        asked.options.set(&video_keys::IMAGE, Arc::new(next));
        Ok(asked)
    }
}

impl LongClip {
    /// Size, length and rate of the whole.
    pub fn shape(&self) -> &ClipShape {
        &self.shape
    }

    /// Its frames, read one after the other.
    pub fn frames(&self) -> impl Iterator<Item = brisk_media::Result<Picture>> + '_ {
        let places = self
            .lengths
            .iter()
            .enumerate()
            .flat_map(move |(window, length)| {
                let last = window + 1 == self.lengths.len();
                let end = if last { *length } else { length - self.overlap };
                (0..end).map(move |frame| (window, frame))
            });
        places.map(move |(window, frame)| {
            let read = |window: usize, frame: usize| {
                read_picture(&frame_file(&window_folder(&self.folder, window), frame))
            };
            let mut picture = read(window, frame)?;
            if window > 0 && frame < self.overlap {
                let before = self.lengths[window - 1] - self.overlap + frame;
                let share = (frame + 1) as f32 / (self.overlap + 1) as f32;
                blend(&mut picture, &read(window - 1, before)?, share);
            }
            Ok(picture)
        })
    }

    /// Removes what lies in its folder, once the clip is written.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(self) -> Result<()> {
        let Self { folder, _lock, .. } = self;
        drop(_lock);
        let shown = folder.display().to_string();
        std::fs::remove_dir_all(&folder).map_err(|error| Error::folder(shown, error.to_string()))
    }
}

fn window_folder(folder: &Path, window: usize) -> PathBuf {
    folder.join(format!("window-{window:04}"))
}

fn frame_file(folder: &Path, frame: usize) -> PathBuf {
    folder.join(format!("{frame:04}.png"))
}

fn count_frames(folder: &Path) -> Result<usize> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| Error::folder(folder.display().to_string(), error.to_string()))?;
    Ok(entries.count())
}

/// Keeps the frames of a run from number `from` on, whole or not at all.
fn keep(target: &Path, clip: &Clip, from: usize) -> Result<()> {
    let made = TemporaryFolder::create(target)?;
    for (index, frame) in clip.frames().iter().skip(from).enumerate() {
        write_atomic(&frame_file(made.path(), index), &encode_png(frame, &[])?)?;
    }
    Ok(made.keep()?)
}

/// `share` of a picture, the rest of the one before it.
fn blend(picture: &mut Picture, before: &Picture, share: f32) {
    for (value, old) in picture.pixels.iter_mut().zip(&before.pixels) {
        let mixed = share * f32::from(*value) + (1.0 - share) * f32::from(*old);
        *value = mixed.round() as u8;
    }
}

/// Gives a picture the mean and spread that another has, colour by colour.
fn match_colours(picture: &mut Picture, like: &Picture) {
    let pairs = picture.colours().into_iter().zip(like.colours());
    for (colour, ((mean, spread), (wanted_mean, wanted_spread))) in pairs.enumerate() {
        // A plane of one value has no spread to change.
        let gain = if spread > 0.0 {
            wanted_spread / spread
        } else {
            1.0
        };
        for value in picture.pixels.iter_mut().skip(colour).step_by(3) {
            let moved = (f64::from(*value) - mean) * gain + wanted_mean;
            *value = moved.round().clamp(0.0, 255.0) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use brisk_pipelines::{OpenSettings, registry};
    use brisk_store::ModelFolder;
    use brisk_testkit::fixtures_dir;

    fn request(case: &str) -> (Box<dyn VideoModel>, VideoRequest) {
        let folder = fixtures_dir().join(format!("pipelines/hunyuan_video_{case}"));
        let first = read_picture(&folder.join("first.png")).unwrap();
        let model = registry::open_video(&ModelFolder::Disk(folder), &OpenSettings::default());
        let request = VideoRequest::new("a red heart jumps")
            .with(&video_keys::IMAGE, Arc::new(first))
            .with(&video_keys::FRAMES, 9)
            .with(&video_keys::WIDTH, 48)
            .with(&video_keys::HEIGHT, 32)
            .with(&keys::STEPS, 2);
        (model.unwrap(), request)
    }

    const THREE: Windows = Windows {
        count: 3,
        overlap: 0,
        match_colours: false,
        keep_prompt_image: false,
    };

    fn frames(clip: &LongClip) -> Vec<Picture> {
        let frames: Vec<Picture> = clip.frames().map(Result::unwrap).collect();
        assert_eq!(frames.len(), clip.shape().frames);
        frames
    }

    #[test]
    fn a_run_begins_where_the_last_ended() {
        for (case, own, given) in [("concat", 5, 0), ("replace", 8, 1)] {
            let place = tempfile::tempdir().unwrap();
            let (mut model, request) = request(case);
            let make = |windows: &Windows, name: &str, model: &mut dyn VideoModel| {
                let control = Control::silent();
                let clip = windows.make(model, (&request, "m"), &place.path().join(name), &control);
                frames(&clip.unwrap())
            };
            let whole = make(&THREE, "whole", &mut *model);
            assert_eq!(whole.len(), given + 3 * own, "{case}");
            // The second run, by hand.
            let again = request
                .clone()
                .with(&keys::SEED, 1)
                .with(&video_keys::IMAGE, Arc::new(whole[given + own - 1].clone()));
            let plan = model.plan(&again).unwrap();
            assert_eq!(plan.given_frames, given);
            let second = model.generate(&plan, &Control::silent()).unwrap();
            assert_eq!(
                second.clip.frames()[given..],
                whole[given + own..given + 2 * own]
            );
            for (what, windows) in [
                (
                    "overlap",
                    Windows {
                        overlap: 2,
                        ..THREE
                    },
                ),
                (
                    "colours",
                    Windows {
                        match_colours: true,
                        ..THREE
                    },
                ),
                (
                    "prompt",
                    Windows {
                        keep_prompt_image: true,
                        ..THREE
                    },
                ),
            ] {
                let other = make(&windows, what, &mut *model);
                assert_eq!(other.len(), given + 3 * own - 2 * windows.overlap);
                assert_ne!(other.last(), whole.last(), "{case}, {what}");
            }
        }
    }

    #[test]
    fn what_was_stopped_goes_on() {
        let place = tempfile::tempdir().unwrap();
        let (mut model, request) = request("concat");
        let [whole, parted] = ["whole", "parted"].map(|name| place.path().join(name));
        let silent = Control::silent();
        let undisturbed = THREE
            .make(&mut *model, (&request, "m"), &whole, &silent)
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, saved) = (stop.clone(), Arc::new(AtomicUsize::new(0)));
        let control = Control::new(move |event| {
            if let Event::Saved { .. } = event {
                flag.store(
                    saved.fetch_add(1, Ordering::Relaxed) == 1,
                    Ordering::Relaxed,
                );
            }
        });
        let stopped = THREE.make(
            &mut *model,
            (&request, "m"),
            &parted,
            &control.with_cancel(stop),
        );
        assert!(matches!(stopped, Err(Error::Cancelled)));
        let resumed = Arc::new(AtomicUsize::new(0));
        let seen = resumed.clone();
        let control = Control::new(move |event| {
            if let Event::Resumed { step } = event {
                seen.store(step as usize, Ordering::Relaxed);
            }
        });
        // Another clip does not go on with it.
        let other = request.clone().with(&keys::STEPS, 3);
        let refused = THREE
            .make(&mut *model, (&other, "m"), &parted, &silent)
            .unwrap_err();
        assert!(refused.to_string().contains("another clip"), "{refused}");
        let clip = THREE
            .make(&mut *model, (&request, "m"), &parted, &control)
            .unwrap();
        assert_eq!(resumed.load(Ordering::Relaxed), 2);
        assert_eq!(frames(&clip), frames(&undisturbed));
        clip.remove().unwrap();
        assert!(!parted.exists());
    }

    #[test]
    fn what_cannot_follow_on_is_refused_by_name() {
        let (model, request) = request("concat");
        let refused = |windows: &Windows| windows.check(&*model, &request).unwrap_err().to_string();
        let message = refused(&Windows {
            overlap: 5,
            ..THREE
        });
        assert!(message.starts_with("overlap"), "{message}");
        let message = refused(&Windows { count: 0, ..THREE });
        assert!(message.starts_with("windows"), "{message}");
    }

    #[test]
    fn colours_are_moved_to_their_likeness() {
        let mut picture = Picture::filled(2, 1, [10, 20, 30]);
        picture.pixels[0] = 30;
        let mut like = Picture::filled(2, 1, [100, 20, 90]);
        like.pixels[0] = 180;
        match_colours(&mut picture, &like);
        assert_eq!(picture.pixels, [180, 20, 90, 100, 20, 90]);
    }
}
