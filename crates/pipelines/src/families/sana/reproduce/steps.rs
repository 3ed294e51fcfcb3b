//! SANA (arXiv 2410.10629): attention whose cost grows with the picture, not with its square, and fewer
//! steps by Flow-DPM-Solver.

use super::super::options as own;
use crate::error::{Error, Result};
use crate::events::{StepClock, Work};
use crate::options::{Options, keys};
use crate::registry;
use crate::reproduce::{Evidence, Laboratory, Measured, Reproduction};
use crate::request::{ImageModel, ImageRequest, OpenSettings};

/// The claim of the paper.
pub static SANA: Reproduction = Reproduction {
    paper: "sana",
    title: "SANA: Efficient High-Resolution Image Synthesis with Linear Diffusion Transformers",
    arxiv: "2410.10629",
    claim: "with linear attention a step costs as many operations a pixel at any size, and \
            Flow-DPM-Solver needs 14 to 20 steps where Flow-Euler needs 28 to 50",
    reported: &[],
    reported_on: "SANA-0.6B, 1024 px",
    model: "sana-emoji",
    beside: None,
    run,
};

const PROMPTS: [&str; 4] = ["red heart", "pizza", "rocket", "dog face"];
/// Steps of the run that stands for the exact solution.
const MANY: usize = 200;
/// Sides of the pictures whose steps are timed, in pixels.
const SIDES: [usize; 3] = [512, 1024, 2048];
/// Most that the time of a step may grow by from one side to the next, where pixels grow by 4 and the
/// square of their number by 16.
const MOST_GROWTH: f64 = 6.0;
/// How often all sides are timed where the growth seems larger: other work on the machine may have
/// fallen on one of them.
const MOST_ROUNDS: usize = 5;

fn run(laboratory: &Laboratory) -> Result<Evidence> {
    let settings = OpenSettings::new(Options::new().with(&keys::RESIDENCY, "all".to_owned()));
    let mut model = registry::open_image(&laboratory.model, &settings)?;
    let samplers = [
        ("euler", 28, "28 to 50 steps suffice"),
        ("euler", 50, ""),
        ("dpm", 14, "14 to 20 steps suffice"),
        ("dpm", 20, ""),
    ];
    let work = SIDES.len() + 1 + samplers.len();
    laboratory.control.stage("drawing", Work::Run, work);
    let mut clock = StepClock::new(work);
    let mut rows = Vec::new();
    let mut times = [f64::INFINITY; SIDES.len()];
    for round in 0..MOST_ROUNDS {
        for (side, least) in SIDES.into_iter().zip(&mut times) {
            *least = least.min(step_seconds(&mut *model, side, laboratory)?);
            if round == 0 {
                clock.step(laboratory.control);
            }
        }
        if grows_slowly(&times) {
            break;
        }
    }
    for (index, side) in SIDES.into_iter().enumerate() {
        let before = index.checked_sub(1).map(|index| times[index]);
        let growth = before.map_or(String::new(), |before| {
            format!(", {:.1}x", times[index] / before)
        });
        rows.push(Measured::new(
            format!("a step at {side} px"),
            if before.is_some() { "4x" } else { "" },
            format!("{:.1} ms{growth}", 1000.0 * times[index]),
        ));
    }
    let exact = latents(&mut *model, "euler", MANY, laboratory)?;
    clock.step(laboratory.control);
    for (sampler, steps, paper) in samplers {
        let found = latents(&mut *model, sampler, steps, laboratory)?;
        rows.push(Measured::new(
            format!("{sampler}, {steps} steps"),
            paper,
            format!(
                "latents {:.1} % off those of {MANY} Euler steps",
                100.0 * relative(&found, &exact)
            ),
        ));
        clock.step(laboratory.control);
    }
    Ok(Evidence {
        setting: format!(
            "{}, a small model: its solver rows are reported, not judged",
            model.label()
        ),
        rows,
        effect: format!(
            "four times the pixels cost at most {MOST_GROWTH} times the time of a step (attention over \
             all pairs: 16 times)"
        ),
        appears: grows_slowly(&times),
    })
}

fn grows_slowly(times: &[f64]) -> bool {
    times
        .windows(2)
        .all(|pair| pair[1] <= MOST_GROWTH * pair[0])
}

/// Seconds of one step at a size, the least of a few.
fn step_seconds(model: &mut dyn ImageModel, side: usize, laboratory: &Laboratory) -> Result<f64> {
    const STEPS: usize = 4;
    let request = ImageRequest::new(PROMPTS[0])
        .with(&keys::WIDTH, side)
        .with(&keys::HEIGHT, side)
        .with(&own::NO_BINNING, true)
        .with(&keys::GUIDANCE, 1.0)
        .with(&keys::STEPS, STEPS);
    let (sender, receiver) = std::sync::mpsc::channel();
    let control = crate::Control::new(move |event| drop(sender.send(event)))
        .with_cancel(laboratory.control.cancel_flag());
    model.draw(&request, &control)?;
    let steps = receiver.try_iter().filter_map(|event| match event {
        crate::Event::Step { total, seconds, .. } if total == STEPS => Some(seconds),
        _ => None,
    });
    steps
        .min_by(f64::total_cmp)
        .ok_or_else(|| Error::folder(model.label(), "reported no steps"))
}

fn latents(
    model: &mut dyn ImageModel,
    sampler: &str,
    steps: usize,
    laboratory: &Laboratory,
) -> Result<Vec<f32>> {
    let mut request = ImageRequest::new(PROMPTS[0])
        .with(&own::SCHEDULER, sampler.to_owned())
        .with(&keys::STEPS, steps);
    request.prompts = PROMPTS.map(str::to_owned).to_vec();
    let plan = model.plan(&request)?;
    let silent = crate::Control::silent().with_cancel(laboratory.control.cancel_flag());
    let images = model.generate(&plan, &silent)?;
    Ok(images
        .into_iter()
        .filter_map(|image| image.latents)
        .flat_map(|latents| latents.values)
        .collect())
}

/// Relative L2 distance.
fn relative(found: &[f32], exact: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value).powi(2);
    let distance: f64 = found.iter().zip(exact).map(|(a, b)| square(a - b)).sum();
    let size: f64 = exact.iter().map(|value| square(*value)).sum();
    (distance / size.max(f64::MIN_POSITIVE)).sqrt()
}
