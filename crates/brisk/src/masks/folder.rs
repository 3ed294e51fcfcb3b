//! Masks of every picture of a folder: several at once, within a budget of memory. What is there already is not done
//! again, so that a run that was killed goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use brisk_pipelines::events::{Event, Work};
use brisk_pipelines::options::Options;
use brisk_pipelines::request::MaskModel;
use brisk_pipelines::{Control, Error, Result, memory};
use brisk_store::output::{FolderLock, check_writable};
use brisk_store::{Limit, ModelFolder, is_picture, read_json, write_atomic};
use serde_json::{Value, json};

use super::{Annotations, MaskFiles, SUMMARY, pretty};

/// What was asked for, in the folder of results.
const REQUEST: &str = "request.json";
/// Share of free memory that pictures take together.
const BUDGET: f64 = 0.8;

/// The pictures of a folder, and where their masks go: a folder for each.
#[derive(Debug)]
pub struct PictureFolder {
    pictures: Vec<(PathBuf, PathBuf)>,
    out: PathBuf,
    _lock: FolderLock,
}

/// What a run over a folder did.
#[derive(Debug, Default)]
pub struct FolderReport {
    /// Pictures whose masks were there already.
    pub before: usize,
    /// Pictures that are done now.
    pub done: usize,
    /// Pictures without words, and why others failed.
    pub failed: Vec<(PathBuf, String)>,
}

impl PictureFolder {
    /// The PNG, JPEG and WebP files of `pictures`, for results in `out` with these options of this model.
    ///
    /// # Errors
    /// Folders that cannot be read or written; none of these files; results of another request.
    pub fn open(pictures: &Path, out: &Path, options: &Options, model: &str) -> Result<Self> {
        let wrong = |place: &Path, problem: String| {
            Error::request("picture", format!("{}: {problem}", place.display()))
        };
        let files =
            std::fs::read_dir(pictures).map_err(|error| wrong(pictures, error.to_string()))?;
        let mut found: Vec<PathBuf> = files
            .flatten()
            .map(|file| file.path())
            .filter(|path| path.is_file() && is_picture(path))
            .collect();
        found.sort();
        if found.is_empty() {
            return Err(wrong(
                pictures,
                "there is no PNG, JPEG or WebP file".to_owned(),
            ));
        }
        if !out.is_dir() {
            check_writable(out)?;
            std::fs::create_dir_all(out).map_err(|error| wrong(out, error.to_string()))?;
        }
        let lock = FolderLock::take(out)?;
        let asked = json!({"pictures": pictures.display().to_string(), "model": model, "options": options.to_json()});
        let kept = out.join(REQUEST);
        if kept.is_file() {
            let before: Value = read_json(&kept, Limit::SETTINGS)?;
            if before != asked {
                let message = format!(
                    "{} holds results of another request ({REQUEST}); name another folder",
                    out.display()
                );
                return Err(Error::request("output", message));
            }
        } else {
            let holds_more = std::fs::read_dir(out).is_ok_and(|files| {
                files
                    .flatten()
                    .any(|file| !file.file_name().to_string_lossy().starts_with('.'))
            });
            if holds_more {
                let message = format!(
                    "{} is there already; name a folder that is not",
                    out.display()
                );
                return Err(Error::request("output", message));
            }
            write_atomic(&kept, pretty(&asked).as_bytes())?;
        }
        // Pictures whose names differ by their ending alone keep it.
        let stem = |path: &Path| path.file_stem().unwrap_or_default().to_os_string();
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        found
            .iter()
            .for_each(|path| *counts.entry(stem(path)).or_default() += 1);
        let place = |path: PathBuf| {
            let name = match counts[&stem(&path)] {
                1 => stem(&path),
                _ => path.file_name().unwrap_or_default().to_os_string(),
            };
            let folder = out.join(name);
            (path, folder)
        };
        let pictures = found.into_iter().map(place).collect();
        Ok(Self {
            pictures,
            out: out.to_owned(),
            _lock: lock,
        })
    }

    /// Finds the masks of all pictures that have none yet, `parallel` at once at most, and sums up in `summary.json`.
    ///
    /// # Errors
    /// A request that no picture could be put to, results that cannot be written, a cancellation. What is wrong with a
    /// single picture is told in the report.
    pub fn run(
        &self,
        model: &mut dyn MaskModel,
        (options, name): (&Options, &str),
        folder: &ModelFolder,
        annotations: &Annotations,
        parallel: usize,
        control: &Control,
    ) -> Result<FolderReport> {
        let left: Vec<&(PathBuf, PathBuf)> = self
            .pictures
            .iter()
            .filter(|(_, folder)| !folder.join(SUMMARY).is_file())
            .collect();
        let report = Mutex::new(FolderReport {
            before: self.pictures.len() - left.len(),
            ..FolderReport::default()
        });
        control.stage("pictures", Work::Run, left.len());
        let workers = parallel.clamp(1, left.len().max(1));
        let mut models = Vec::with_capacity(workers);
        for _ in 0..workers {
            models.push(model.another()?);
        }
        let budget = Budget::new(memory::available().map(|free| (free as f64 * BUDGET) as u64));
        let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let started = std::time::Instant::now();
        let work = |mut model: Box<dyn MaskModel>| -> Result<()> {
            while let Some((picture, folder_of)) = left.get(next.fetch_add(1, Ordering::Relaxed)) {
                control.check()?;
                let files = MaskFiles {
                    timed: false,
                    ..MaskFiles::new(picture, Some(folder_of), None)
                };
                let mut one = || -> Result<()> {
                    let words = annotations.of(picture)?;
                    let request = files.request_about(options.clone(), folder, words)?;
                    let plan = model.plan(&request)?;
                    let needed = plan
                        .memory
                        .iter()
                        .map(|stage| stage.needed)
                        .max()
                        .unwrap_or(0);
                    let _share = budget.take(needed);
                    let silent = Control::silent().with_cancel(control.cancel_flag());
                    let found = model.generate(&plan, &silent)?;
                    files.write(&plan, &found, name)?;
                    Ok(())
                };
                let outcome = one();
                let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                match outcome {
                    Ok(_) => report.done += 1,
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Err(error) => {
                        control.warn(format!("{}: {error}", picture.display()));
                        report.failed.push((picture.clone(), error.to_string()));
                    }
                }
                drop(report);
                let index = finished.fetch_add(1, Ordering::Relaxed) + 1;
                let seconds = started.elapsed().as_secs_f64() / index as f64;
                control.send(Event::Step {
                    index,
                    total: left.len(),
                    seconds,
                });
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = models
                .into_iter()
                .map(|model| scope.spawn(|| work(model)))
                .collect();
            // All are waited for, whatever became of the first.
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            ended.into_iter().try_for_each(|thread| match thread {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.failed.sort();
        write_atomic(
            &self.out.join(SUMMARY),
            pretty(&self.summary(&report)?).as_bytes(),
        )?;
        Ok(report)
    }

    /// Sums of all pictures, the same whenever they were done.
    fn summary(&self, report: &FolderReport) -> Result<Value> {
        let (mut words, mut characters, mut pixels, mut flags) =
            (0u64, 0u64, 0u64, BTreeMap::<String, u64>::new());
        let mut done = 0;
        for (_, folder) in &self.pictures {
            let file = folder.join(SUMMARY);
            if !file.is_file() {
                continue;
            }
            let own: Value = read_json(&file, Limit::DATA)?;
            done += 1;
            let listed =
                |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
            for word in listed(&own, "words") {
                words += 1;
                pixels += word["area"].as_u64().unwrap_or(0);
                let of_characters = listed(&word, "characters");
                characters += of_characters.len() as u64;
                for flagged in of_characters.iter().chain([&word]) {
                    for flag in listed(flagged, "flags") {
                        *flags
                            .entry(flag.as_str().unwrap_or_default().to_owned())
                            .or_default() += 1;
                    }
                }
            }
        }
        let failed: Vec<Value> = report
            .failed
            .iter()
            .map(|(path, problem)| json!({"picture": path.display().to_string(), "problem": problem}))
            .collect();
        Ok(json!({
            "pictures": self.pictures.len(), "done": done, "failed": failed, "words": words,
            "characters": characters, "text_pixels": pixels, "flags": flags,
        }))
    }

    /// Where results go.
    pub fn out(&self) -> &Path {
        &self.out
    }
}

/// Memory that pictures share; a picture that needs more than all of it is done alone.
struct Budget {
    free: Mutex<u64>,
    freed: Condvar,
    all: Option<u64>,
}

struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    fn new(all: Option<u64>) -> Self {
        Self {
            free: Mutex::new(all.unwrap_or(u64::MAX)),
            freed: Condvar::new(),
            all,
        }
    }

    fn take(&self, needed: u64) -> Share<'_> {
        let bytes = needed.min(self.all.unwrap_or(u64::MAX));
        let state = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self
            .freed
            .wait_while(state, |free| *free < bytes)
            .unwrap_or_else(PoisonError::into_inner);
        *state -= bytes;
        Share {
            budget: self,
            bytes,
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut state = self
            .budget
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *state += self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let budget = Budget::new(Some(100));
        let most = AtomicUsize::new(0);
        let now = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for index in 0..12u64 {
                let (budget, most, now) = (&budget, &most, &now);
                scope.spawn(move || {
                    let needed = 30 + 100 * (index % 2);
                    let _share = budget.take(needed);
                    let taken = now.fetch_add(needed.min(100) as usize, Ordering::SeqCst)
                        + needed.min(100) as usize;
                    most.fetch_max(taken, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(needed.min(100) as usize, Ordering::SeqCst);
                });
            }
        });
        assert!(most.into_inner() <= 100);
        assert_eq!(budget.free.into_inner().unwrap(), 100);
    }
}
