//! The sampler's settings: the folder's, or what stands for them where a request names a sampler.

use brisk_models::sana::SanaConfig;
use brisk_store::ModelFolder;
use serde_json::Value;

use super::index::INDEX;
use super::plan::ModelKind;
use crate::diffusion::schedulers::SchedulerConfig;
use crate::diffusion::schedulers::dpm_solver::DpmSolverConfig;
use crate::diffusion::schedulers::scm::ScmConfig;
use crate::error::{Error, Result};

/// File of the settings.
const FILE: &str = "scheduler/scheduler_config.json";

/// The settings of a folder.
pub(super) struct SchedulerFile {
    pub(super) config: SchedulerConfig,
    /// Why the folder's own sampler cannot be had: what is at fault, and how. A request must name one then.
    pub(super) problem: Option<(String, String)>,
    /// The class that the file names.
    pub(super) class: Option<String>,
}

impl SchedulerFile {
    pub(super) fn open(
        folder: &ModelFolder,
        kind: ModelKind,
        transformer: &SanaConfig,
    ) -> Result<Self> {
        if !folder.exists(FILE) {
            return Ok(Self {
                problem: folder
                    .exists(INDEX)
                    .then(|| (folder.label(), format!("there is no {FILE}"))),
                config: usual(kind, transformer, None),
                class: None,
            });
        }
        let label = format!("{}/{FILE}", folder.label());
        let file = folder.read_json(FILE)?;
        let class = file.get("_class_name").and_then(Value::as_str);
        let class = class.map(str::to_owned);
        let config = match SchedulerConfig::from_json(&file, &label) {
            Ok(config) => config,
            // A sampler of another class: its time grid may still be shifted as the file says.
            Err(Error::Config { file: at, message }) if kind == ModelKind::Sana => {
                let shift = ["shift", "flow_shift"]
                    .iter()
                    .find_map(|key| file.get(key).and_then(Value::as_f64))
                    .filter(|shift| shift.is_finite() && *shift > 0.0);
                return Ok(Self {
                    config: usual(kind, transformer, shift),
                    problem: Some((at, message)),
                    class,
                });
            }
            Err(error) => return Err(error),
        };
        let is_scm = matches!(config, SchedulerConfig::Scm(_));
        match kind {
            ModelKind::Sprint if !is_scm => Err(Error::config(
                label,
                "SANA-Sprint needs SCMScheduler, this is another",
            )),
            ModelKind::Sana if is_scm => Err(Error::config(
                label,
                "SCMScheduler is for SANA-Sprint; SANA needs a flow scheduler",
            )),
            _ => Ok(Self {
                config,
                problem: None,
                class,
            }),
        }
    }
}

/// What published models of a kind have.
fn usual(kind: ModelKind, transformer: &SanaConfig, shift: Option<f64>) -> SchedulerConfig {
    match kind {
        ModelKind::Sprint => SchedulerConfig::Scm(ScmConfig { sigma_data: 0.5 }),
        ModelKind::Sana => SchedulerConfig::DpmSolver(DpmSolverConfig {
            shift: shift.unwrap_or(if transformer.sample_size >= 128 {
                6.0
            } else {
                3.0
            }),
            order: 2,
            train_timesteps: 1000,
        }),
    }
}
