//! Grids and trajectories against diffusers, driven by v = A x + b over channels.

use std::collections::HashMap;

use brisk_nn::Tensor;
use brisk_pipelines::diffusion::schedulers::scm::{self, Scm, ScmConfig};
use brisk_pipelines::diffusion::schedulers::{SchedulerConfig, SchedulerKind};
use brisk_testkit::{fixtures_dir, load_tensors, relative_l2, values};

/// Relative L2 after any step.
const TOLERANCE: f64 = 2e-6;

struct Linear {
    matrix: Tensor,
    bias: Tensor,
}

impl Linear {
    fn of(golden: &HashMap<String, Tensor>) -> Self {
        let bias = golden["inputs.b"].reshape((1, 4, 1)).unwrap();
        Self {
            matrix: golden["inputs.a"].unsqueeze(0).unwrap(),
            bias,
        }
    }

    fn velocity(&self, sample: &Tensor) -> Tensor {
        let flat = sample.reshape((1, 4, ())).unwrap();
        let product = self.matrix.matmul(&flat).unwrap();
        product
            .broadcast_add(&self.bias)
            .unwrap()
            .reshape(sample.shape())
            .unwrap()
    }
}

fn folder(name: &str) -> std::path::PathBuf {
    fixtures_dir().join("schedulers").join(name)
}

fn config(path: &str) -> SchedulerConfig {
    let mut bytes = std::fs::read(folder(path)).unwrap();
    // The fixture's files hold the settings only.
    let class = match path {
        "flow/dpm_scheduler_config.json" => "DPMSolverMultistepScheduler",
        "flow/euler_scheduler_config.json" => "FlowMatchEulerDiscreteScheduler",
        _ => "SCMScheduler",
    };
    let text = String::from_utf8(std::mem::take(&mut bytes)).unwrap();
    let text = text.replacen('{', &format!("{{\"_class_name\": \"{class}\","), 1);
    SchedulerConfig::from_bytes(text.as_bytes(), path).unwrap()
}

fn check(name: &str, found: &Tensor, expected: &Tensor) {
    let distance = relative_l2(&values(found), &values(expected));
    assert!(distance < TOLERANCE, "{name}: relative L2 {distance:e}");
}

#[test]
fn flow_grids_and_trajectories() {
    let golden = load_tensors(folder("flow/golden.safetensors"));
    let linear = Linear::of(&golden);
    let mut trajectories = 0;
    let mut names: Vec<_> = golden
        .keys()
        .filter_map(|name| name.strip_suffix(".sigmas"))
        .collect();
    names.sort_unstable();
    assert_eq!(names.len(), 15);
    for name in names {
        let parts: Vec<_> = name.split('.').collect();
        let shift: f64 = parts[1].trim_start_matches("shift").parse().unwrap();
        let steps: usize = parts[2].trim_start_matches('n').parse().unwrap();
        let config = config(&format!("flow/{}_scheduler_config.json", parts[0]));
        let mut sampler = config.flow_sampler(None, Some(shift), steps).unwrap();
        let near = |found: &[f32], expected: &Tensor, tolerance: f32| {
            let expected = values(expected);
            assert_eq!(found.len(), expected.len(), "{name}");
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() <= tolerance, "{name}: {a} {b}");
            }
        };
        near(sampler.sigmas(), &golden[&format!("{name}.sigmas")], 1e-7);
        let exact = if parts[0] == "dpm" { 0.0 } else { 1e-4 };
        near(
            sampler.timesteps(),
            &golden[&format!("{name}.timesteps")],
            exact,
        );
        let Some(expected) = golden.get(&format!("{name}.samples")) else {
            continue;
        };
        trajectories += 1;
        let mut sample = golden["inputs.latents"].clone();
        for index in 0..steps {
            sample = sampler
                .step(index, &linear.velocity(&sample), &sample)
                .unwrap();
            check(
                &format!("{name} step {index}"),
                &sample,
                &expected.narrow(0, index, 1).unwrap().squeeze(0).unwrap(),
            );
        }
    }
    assert_eq!(trajectories, 8);
}

#[test]
fn a_named_kind_replaces_the_files() {
    let config = config("flow/dpm_scheduler_config.json");
    assert_eq!(config.kind(), SchedulerKind::DpmSolver);
    let golden = load_tensors(folder("flow/golden.safetensors"));
    let euler = config
        .flow_sampler(Some(SchedulerKind::FlowEuler), None, 20)
        .unwrap();
    let expected = values(&golden["euler.shift3.n20.sigmas"]);
    assert!(relative_l2(euler.sigmas(), &expected) < 1e-7);
}

#[test]
fn consistency_trajectories() {
    let golden = load_tensors(folder("scm/golden.safetensors"));
    let linear = Linear::of(&golden);
    let SchedulerConfig::Scm(config) = config("scm/scheduler_config.json") else {
        panic!("another scheduler")
    };
    assert_eq!(config, ScmConfig { sigma_data: 0.5 });
    let grids = [
        ("n1", scm::default_angles(1).unwrap()),
        ("n2", scm::default_angles(2).unwrap()),
        ("n4", scm::uniform_angles(4)),
        ("n4_searched", scm::default_angles(4).unwrap()),
    ];
    for (name, angles) in grids {
        let expected = |part: &str| golden[&format!("{name}.{part}")].clone();
        for (a, b) in angles.iter().zip(values(&expected("timesteps"))) {
            assert!((a - b).abs() < 1e-6, "{name}: {a} {b}");
        }
        let scm = Scm::new(&config, angles);
        let mut sample = golden["inputs.latents"].affine(0.5, 0.0).unwrap();
        let mut result = sample.clone();
        for index in 0..scm.steps() {
            let input = scm.model_input(index, &sample).unwrap();
            let prediction = scm
                .prediction(index, &input, &linear.velocity(&input))
                .unwrap();
            let at = |part: &str| {
                expected(part)
                    .narrow(0, index, 1)
                    .unwrap()
                    .squeeze(0)
                    .unwrap()
            };
            check(
                &format!("{name} output {index}"),
                &prediction,
                &at("model_outputs"),
            );
            let (next, clean) = scm
                .step(index, &prediction, &sample, &at("noises"))
                .unwrap();
            check(&format!("{name} sample {index}"), &next, &at("samples"));
            check(&format!("{name} clean {index}"), &clean, &at("denoised"));
            (sample, result) = (next, clean);
        }
        check(name, &result.affine(2.0, 0.0).unwrap(), &expected("result"));
    }
}
