//! Any bytes as a `scheduler_config.json`, and what it accepts at work: a grid of as many steps as were asked for that
//! moves a sample, or an error, never a panic.
//! Run: `cargo +nightly fuzz run scheduler fuzz/corpus/scheduler fuzz/seeds/scheduler`
#![no_main]

use brisk_nn::Tensor;
use brisk_pipelines::diffusion::schedulers::{SchedulerConfig, SchedulerKind, scm};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = SchedulerConfig::from_bytes(bytes, "fuzz") else {
        return;
    };
    let sample = Tensor::new(&[0.5f32, -1.0]).expect("two numbers");
    for steps in [1, 2, 4, 20, 1000] {
        for kind in [None, Some(SchedulerKind::DpmSolverNative), Some(SchedulerKind::FlowEuler)] {
            let Ok(mut sampler) = config.flow_sampler(kind, None, steps) else {
                continue;
            };
            assert_eq!((sampler.timesteps().len(), sampler.sigmas().len()), (steps, steps + 1));
            let mut moved = sample.clone();
            for index in 0..steps.min(4) {
                moved = sampler.step(index, &sample, &moved).expect("the shapes agree");
            }
        }
        if let SchedulerConfig::Scm(config) = &config {
            let angles = scm::default_angles(steps).expect("the number of steps is allowed");
            let scm = scm::Scm::new(config, angles);
            assert_eq!(scm.steps(), steps);
        }
    }
});
