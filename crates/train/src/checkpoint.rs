//! Checkpoint folders: complete or not there. A folder is written under another name, then renamed; the last two stay.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use brisk_store::output::TemporaryFolder;
use brisk_store::{
    Limit, OutTensor, SafetensorsFile, TensorSource, read_text, shown, write_safetensors,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, FileContext, JsonContext, Result};
use crate::inputs::Inputs;
use crate::optimiser::NamedCodes;
use crate::recipe::MAX_STEPS;
use crate::tensors::NamedArray;

const WEIGHTS: &str = "weights.safetensors";
const AVERAGE: &str = "average.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";
const STATE: &str = "state.json";
const PREFIX: &str = "step-";
/// How the name of a checkpoint ends that is being replaced.
const REPLACED: &str = ".replaced";

/// Everything of a run that is not an array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Finished updates.
    pub step: u64,
    /// State of the random generator.
    pub rng: u64,
    /// Seconds of training over all restarts.
    pub seconds: f64,
    /// Updates skipped for non-finite gradients.
    pub skipped: u64,
    /// Those of them that are the last ones.
    #[serde(default)]
    pub skipped_in_a_row: u64,
    /// Sum and number of the losses since the last line of the log; no sum where it is not finite.
    #[serde(default)]
    pub losses: (Option<f64>, u64),
    /// Sum and number of the losses' terms since that line.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub terms: BTreeMap<String, (f64, u64)>,
    /// Step and seconds at that line.
    #[serde(default)]
    pub logged: (u64, f64),
    /// True after the last step, when the schedule is over.
    pub finished: bool,
    /// Step at which it was over first, from which it is prolonged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// The recipe the run was started with.
    pub recipe: Value,
    /// What it is made of beside the recipe; older checkpoints don't say.
    #[serde(default)]
    pub inputs: Option<Inputs>,
}

/// The arrays of a checkpoint.
pub struct Contents<'a> {
    /// The variables.
    pub weights: &'a [NamedArray],
    /// Their moving averages.
    pub average: &'a [NamedArray],
    /// The optimiser's state.
    pub optimiser: &'a [NamedArray],
    /// What of it is kept in 8 bits, in the same file.
    pub codes: &'a [NamedCodes],
}

impl RunState {
    /// Refuses numbers that no run writes.
    fn check(&self) -> std::result::Result<(), String> {
        if self.step > MAX_STEPS {
            return Err(format!("step is {}, expected up to {MAX_STEPS}", self.step));
        }
        for (key, count) in [
            ("skipped", self.skipped),
            ("skipped_in_a_row", self.skipped_in_a_row),
            ("losses", self.losses.1),
            ("logged", self.logged.0),
            ("ended", self.ended.unwrap_or(0)),
            (
                "terms",
                self.terms
                    .values()
                    .map(|(_, count)| *count)
                    .max()
                    .unwrap_or(0),
            ),
        ] {
            if count > self.step {
                return Err(format!(
                    "{key} is {count}, more than the {} steps",
                    self.step
                ));
            }
        }
        for (key, seconds) in [("seconds", self.seconds), ("logged", self.logged.1)] {
            if !(0.0..1e12).contains(&seconds) {
                return Err(format!("{key} is {seconds}, expected seconds of a run"));
            }
        }
        Ok(())
    }
}

/// A checkpoint that was found complete.
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Scalars.
    pub state: RunState,
    /// The variables.
    pub weights: SafetensorsFile,
    /// Their moving averages.
    pub average: SafetensorsFile,
    /// The optimiser's state.
    pub optimiser: SafetensorsFile,
    /// Why a later one is passed over, where there is one.
    pub passed_over: Option<String>,
}

/// Checkpoints that stay.
const KEPT: usize = 2;

/// Writes the checkpoint of `state.step` into `folder`; of the others there, the one before stays. What could not be
/// written whole is removed.
pub fn save(folder: &Path, state: &RunState, contents: &Contents) -> Result<PathBuf> {
    fs::create_dir_all(folder).at(folder)?;
    let name = format!("{PREFIX}{:08}", state.step);
    let path = folder.join(&name);
    let temporary = TemporaryFolder::create(&path)?;
    for (file, arrays, codes) in [
        (WEIGHTS, contents.weights, &[][..]),
        (AVERAGE, contents.average, &[]),
        (OPTIMISER, contents.optimiser, contents.codes),
    ] {
        let arrays = arrays.iter().map(NamedArray::to_f32_tensor);
        let codes = codes.iter().map(NamedCodes::to_tensor);
        let tensors: Vec<OutTensor> = arrays.chain(codes).collect();
        write_safetensors(&temporary.path().join(file), &tensors, &Default::default())?;
    }
    let text = serde_json::to_vec_pretty(state).in_document(STATE)?;
    brisk_store::write_atomic(&temporary.path().join(STATE), &text)?;
    // The same step again: a finished run that only marks itself as such.
    if path.exists() {
        let replaced = folder.join(format!(".{name}{REPLACED}"));
        fs::rename(&path, &replaced).at(&path)?;
    }
    temporary.keep()?;
    let (mut complete, mut left_over) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).at(folder)? {
        let other = entry.at(folder)?.path();
        let name = other
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with(PREFIX) {
            complete.push(other);
        } else if name.starts_with(&format!(".{PREFIX}")) {
            left_over.push(other);
        }
    }
    // Steps have eight digits, so names are in their order.
    complete.sort();
    complete.truncate(complete.len().saturating_sub(KEPT));
    for other in complete
        .into_iter()
        .chain(left_over)
        .filter(|other| *other != path)
    {
        fs::remove_dir_all(&other).at(&other)?;
    }
    Ok(path)
}

fn open(path: &Path) -> Result<Checkpoint> {
    let state_path = path.join(STATE);
    let state: RunState = serde_json::from_str(&read_text(&state_path, Limit::SETTINGS)?)
        .in_document(state_path.display())?;
    let named = step_of(path);
    let check = || match named {
        Some(step) if step == state.step => state.check(),
        _ => Err(format!("step is {}, another than the folder's", state.step)),
    };
    check().map_err(|message| Error::Checkpoint {
        path: state_path,
        message,
    })?;
    Ok(Checkpoint {
        path: path.to_owned(),
        state,
        weights: SafetensorsFile::open(&path.join(WEIGHTS))?,
        average: SafetensorsFile::open(&path.join(AVERAGE))?,
        optimiser: SafetensorsFile::open(&path.join(OPTIMISER))?,
        passed_over: None,
    })
}

/// The step that a checkpoint's folder is named by.
fn step_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.trim_start_matches('.');
    let step = name.strip_prefix(PREFIX)?;
    step.strip_suffix(REPLACED).unwrap_or(step).parse().ok()
}

/// Folders in `folder` that are checkpoints by their names.
fn named(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    if !folder.exists() {
        return Ok(found);
    }
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        // A kill between the two renames of a replacement leaves only the replaced folder.
        let complete =
            name.starts_with(PREFIX) || (name.starts_with('.') && name.ends_with(REPLACED));
        if complete {
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether there is a checkpoint in `folder`, readable or not.
pub(crate) fn is_any(folder: &Path) -> Result<bool> {
    Ok(!named(folder)?.is_empty())
}

/// The latest complete checkpoint in `folder`; none when there is none. A damaged one is passed over, which the result
/// says, but when nothing else is there its error is returned, so that a damaged run isn't silently started anew.
pub fn latest(folder: &Path) -> Result<Option<Checkpoint>> {
    let mut found = named(folder)?;
    found.sort_by_key(|path| {
        path.file_name().and_then(|name| name.to_str()).map(|name| {
            (
                name.trim_start_matches('.').to_owned(),
                !name.starts_with('.'),
            )
        })
    });
    let mut problem = None;
    for path in found.iter().rev() {
        match open(path) {
            Ok(checkpoint) => {
                return Ok(Some(Checkpoint {
                    passed_over: problem.map(|error: Error| error.to_string()),
                    ..checkpoint
                }));
            }
            Err(error) => problem = Some(error),
        }
    }
    match problem {
        Some(error) => Err(Error::NoCheckpoint {
            problem: Box::new(error),
            folder: folder.to_owned(),
        }),
        None => Ok(None),
    }
}

impl Checkpoint {
    /// Refuses a checkpoint of other parameters, or of another optimiser than whose state has these names.
    pub(crate) fn expect(&self, parameters: &[&str], state: &[&str]) -> Result<()> {
        let state: BTreeSet<&str> = state.iter().copied().collect();
        let parameters: BTreeSet<&str> = parameters.iter().copied().collect();
        for (file, known) in [
            (&self.weights, &parameters),
            (&self.average, &parameters),
            (&self.optimiser, &state),
        ] {
            let stored = file.names();
            if let Some(name) = stored.iter().find(|name| !known.contains(name.as_str())) {
                return Err(Error::Checkpoint {
                    path: file.origin(name).into(),
                    message: format!(
                        "it holds {}, which the recipe's model does not have",
                        shown(name)
                    ),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(step: u64) -> RunState {
        RunState {
            step,
            rng: u64::MAX - 5,
            seconds: 2.5,
            skipped: 1,
            skipped_in_a_row: 1,
            losses: (Some(0.1), 3),
            terms: BTreeMap::new(),
            logged: (step - 1, 2.25),
            finished: false,
            ended: None,
            recipe: serde_json::json!({"name": "test"}),
            inputs: Some(Inputs::default()),
        }
    }

    fn write(folder: &Path, step: u64) -> PathBuf {
        let arrays = [NamedArray {
            name: "w".to_owned(),
            shape: vec![2],
            values: vec![step as f32, 1.0],
        }];
        let contents = Contents {
            weights: &arrays,
            average: &arrays,
            optimiser: &arrays,
            codes: &[],
        };
        save(folder, &state(step), &contents).unwrap()
    }

    #[test]
    fn the_last_two_stay_and_the_latest_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert!(latest(&folder.join("none")).unwrap().is_none());
        let first = write(folder, 8);
        let second = write(folder, 9);
        write(folder, 10);
        write(folder, 10);
        assert!(!first.exists() && second.exists());
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
        let found = latest(folder).unwrap().unwrap();
        assert_eq!(found.state, state(10));
        let values = crate::tensors::read(&found.weights, "w", &[2]).unwrap();
        assert_eq!(values, [10.0, 1.0]);
        assert!(found.expect(&["w"], &["w"]).is_ok());
        for (parameters, state) in [("v", "w"), ("w", "v")] {
            let refused = found.expect(&[parameters], &[state]);
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("it holds w"), "{refused}");
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write(folder, 3);
        let twice = |name: &str| NamedArray {
            name: name.to_owned(),
            shape: vec![1],
            values: vec![0.0],
        };
        let arrays = [twice("w"), twice("w")];
        let contents = Contents {
            weights: &arrays,
            average: &arrays,
            optimiser: &arrays,
            codes: &[],
        };
        assert!(save(folder, &state(4), &contents).is_err());
        assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
    }

    #[test]
    fn what_a_kill_leaves_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let good = write(folder, 3);
        fs::create_dir(folder.join(".step-00000004.partial")).unwrap();
        fs::create_dir(folder.join("step-00000005")).unwrap();
        let found = latest(folder).unwrap().unwrap();
        assert_eq!(found.state.step, 3);
        assert!(found.passed_over.unwrap().contains("step-00000005"));
        fs::remove_dir_all(good).unwrap();
        let refused = latest(folder).err().unwrap();
        assert!(matches!(refused, Error::NoCheckpoint { .. }));
        let (message, name) = (refused.to_string(), "step-00000005");
        assert_eq!(message.matches(name).count(), 1, "{message}");
    }

    #[test]
    fn states_that_no_run_writes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let path = write(folder, 8).join(STATE);
        let text = fs::read_to_string(&path).unwrap();
        for (key, from, to) in [
            ("step", "\"step\": 8", "\"step\": 18446744073709551615"),
            ("skipped", "\"skipped\": 1", "\"skipped\": 9"),
            ("seconds", "\"seconds\": 2.5", "\"seconds\": -1e300"),
        ] {
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replace(from, to)).unwrap();
            let error = latest(folder).err().unwrap().to_string();
            assert!(error.contains(&format!("{key} is")), "{error}");
        }
    }

    #[test]
    fn a_folder_of_another_step_is_no_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write(folder, 8);
        let renamed = folder.join("step-00000099");
        fs::rename(write(folder, 9), renamed).unwrap();
        let found = latest(folder).unwrap().unwrap();
        assert_eq!(found.state.step, 8);
        assert!(found.passed_over.unwrap().contains("step is 9"));
    }

    #[test]
    fn a_state_with_more_than_a_run_writes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let path = write(folder, 8).join(STATE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen('{', "{\"later\": 1, ", 1)).unwrap();
        let error = latest(folder).err().unwrap().to_string();
        assert!(error.contains("later"), "{error}");
    }

    #[test]
    fn a_loss_that_is_not_finite_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents {
            weights: &[],
            average: &[],
            optimiser: &[],
            codes: &[],
        };
        let state = RunState {
            losses: (None, 2),
            ..state(4)
        };
        save(folder.path(), &state, &contents).unwrap();
        let found = latest(folder.path()).unwrap().unwrap();
        assert_eq!(found.state, state);
    }

    #[test]
    fn a_kill_between_the_renames_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let good = write(folder, 3);
        fs::rename(good, folder.join(".step-00000003.replaced")).unwrap();
        assert_eq!(latest(folder).unwrap().unwrap().state.step, 3);
    }
}
