//! Magic 1-For-1 (arXiv 2502.07701): what distillation into few steps keeps that fewer steps of a solver lose.

use brisk_store::ModelFolder;

use crate::error::{Error, Result};
use crate::evaluation_clips::EvaluationClips;
use crate::options::{Options, keys};
use crate::registry;
use crate::reproduce::{ClipFigures, Evidence, Laboratory, Measured, Reproduction};
use crate::request::{OpenSettings, VideoModel};

/// The claim of the paper.
pub(super) static MAGIC141: Reproduction = Reproduction {
    paper: "magic141",
    title: "Magic 1-For-1: Generating One Minute Video Clips within One Minute",
    arxiv: "2502.07701",
    claim: "begun with a frame, a model of clips is distilled into 4 steps that move as many steps do, where the solver's \
            own few steps stand still",
    reported: &[],
    reported_on: "the paper's model, VBench-I2V",
    model: "magic-emoji",
    beside: Some(TEACHER),
    run,
};

/// What the student in the box was distilled from.
const TEACHER: &str = "magic-emoji-teacher";
/// Evaluations of the teacher, two a step with guidance, and what the paper reports of them: dynamic degree and average.
const EULER: [(usize, &str); 5] = [
    (56, "dynamic .2103, average .7740"),
    (28, ".2448, .7623"),
    (16, ".1241, .7441"),
    (8, ".0068, .6969"),
    (4, ".0034, .6642"),
];
/// The same of the student, one a step.
const STUDENT: [(usize, &str); 2] = [(8, ".3207, .7928"), (4, ".4123, .8134")];
/// The evaluations of the teacher that the student is to be nearer to true clips than.
const BEATEN: usize = 8;
/// Share of the motion of the teacher's most steps that the student has to keep.
const KEPT: f64 = 0.9;

fn run(laboratory: &Laboratory) -> Result<Evidence> {
    let folder = &laboratory.model;
    let Some(clips) = EvaluationClips::read(folder)? else {
        return Err(Error::folder(
            folder.label(),
            format!(
                "has no {}; a model of `brisk train video` or `brisk distill dmd` brings it along",
                EvaluationClips::CAPTIONS
            ),
        ));
    };
    let teacher = (laboratory.find)(TEACHER)?;
    let (of_teacher, teacher) = judged(laboratory, &teacher, &clips, &EULER, 2)?;
    let (of_student, student) = judged(laboratory, folder, &clips, &STUDENT, 1)?;
    let named = [
        ("Euler", &EULER[..], &of_teacher),
        ("student", &STUDENT[..], &of_student),
    ];
    let rows = named.into_iter().flat_map(|(name, ways, figures)| {
        let lines = ways.iter().zip(figures);
        lines.map(move |((evaluations, paper), figures)| {
            Measured::new(
                format!("{name}, {evaluations} evaluations"),
                *paper,
                shown(figures),
            )
        })
    });
    let at = |ways: &[(usize, &str)], figures: &[ClipFigures], wanted: usize| {
        let found = ways
            .iter()
            .position(|(evaluations, _)| *evaluations == wanted);
        found.and_then(|index| figures.get(index).copied())
    };
    let few = at(&STUDENT, &of_student, 4);
    let (Some(few), Some(beaten)) = (few, at(&EULER, &of_teacher, BEATEN)) else {
        let message = "the judge gave fewer figures than there are settings";
        return Err(Error::request("paper", message));
    };
    let (many, fewest) = (of_teacher[0], of_teacher[EULER.len() - 1]);
    let keeps = few.moving >= KEPT * many.moving && few.moving > fewest.moving;
    Ok(Evidence {
        setting: format!(
            "{student}, distilled from {teacher}; {} clips of emoji that move, of known motion, whose first frames are \
             given",
            clips.0.len()
        ),
        rows: rows.collect(),
        effect: format!(
            "the student's 4 evaluations are nearer to true clips (Fréchet distance) than {BEATEN} of its teacher, and \
             {:.0} % or more as many of its clips move as of the teacher's {}, and more than of its {}",
            100.0 * KEPT,
            EULER[0].0,
            EULER[EULER.len() - 1].0
        ),
        appears: few.frechet_distance < beaten.frechet_distance && keeps,
    })
}

/// The figures of a model at each number of evaluations, of which a step takes `a_step`; and its name.
fn judged(
    laboratory: &Laboratory,
    folder: &ModelFolder,
    clips: &EvaluationClips,
    ways: &[(usize, &str)],
    a_step: usize,
) -> Result<(Vec<ClipFigures>, String)> {
    let options = Options::new().with(&keys::RESIDENCY, "all".to_owned());
    let mut model = registry::open_video(folder, &OpenSettings::new(options))?;
    check_size(clips, &*model)?;
    let settings: Vec<Options> = ways
        .iter()
        .map(|(evaluations, _)| Options::new().with(&keys::STEPS, evaluations / a_step))
        .collect();
    let figures = (laboratory.judge_clips)(&mut *model, clips, &settings, laboratory.control)?;
    Ok((figures, model.label().to_owned()))
}

/// Refuses clips of another size than the model draws.
fn check_size(clips: &EvaluationClips, model: &dyn VideoModel) -> Result<()> {
    let side = clips.0.iter().find_map(|clip| clip.frames.first());
    let (width, height) = model.usual_size();
    match side {
        Some(frame) if (frame.width, frame.height) != (width, height) => Err(Error::config(
            format!("{}/{}", model.label(), EvaluationClips::SHEET),
            format!(
                "clips of {}x{} pixels; the model draws {width}x{height}",
                frame.width, frame.height
            ),
        )),
        _ => Ok(()),
    }
}

fn shown(figures: &ClipFigures) -> String {
    format!(
        "distance {:.4}, moving {:.0} %, as asked {:.0} %, change a frame {:.2} (true clips {:.2}), first frame {:.1} dB",
        figures.frechet_distance,
        100.0 * figures.moving,
        100.0 * figures.motion_right,
        figures.change,
        figures.truth_change,
        figures.first_frame_psnr
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use brisk_media::Picture;

    use super::*;
    use crate::Control;
    use crate::evaluation_clips::KnownClip;

    fn copied(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copied(&entry.path(), &target),
                false => drop(std::fs::copy(entry.path(), target).unwrap()),
            }
        }
    }

    /// Figures of a way that moves in this share of clips, at this distance.
    fn figures(moving: f64, frechet_distance: f64) -> ClipFigures {
        ClipFigures {
            moving,
            frechet_distance,
            ..ClipFigures::default()
        }
    }

    #[test]
    fn the_effect_is_a_near_student_that_still_moves() {
        let folder = tempfile::tempdir().unwrap();
        copied(
            &brisk_testkit::fixtures_dir().join("pipelines/hunyuan_video_replace"),
            folder.path(),
        );
        let usual = r#"{"width": 32, "height": 32}"#;
        std::fs::write(folder.path().join("generation_config.json"), usual).unwrap();
        let clips = EvaluationClips(vec![KnownClip {
            caption: "a cat jumps".to_owned(),
            motion: "jumps".to_owned(),
            held_out: true,
            frames: vec![Picture::filled(32, 32, [1; 3]); 5],
        }]);
        for (name, bytes) in clips.to_files().unwrap() {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let appears = |student: ClipFigures| {
            let judge = move |_: &mut dyn VideoModel,
                              _: &EvaluationClips,
                              settings: &[Options],
                              _: &Control| {
                let steps: Vec<usize> = settings
                    .iter()
                    .filter_map(|options| options.get(&keys::STEPS))
                    .collect();
                Ok(match steps[..] {
                    [28, 14, 8, 4, 2] => (0..5)
                        .map(|few| figures(1.0 - 0.2 * few as f64, 0.1 + 0.1 * few as f64))
                        .collect(),
                    [8, 4] => vec![figures(1.0, 0.1), student],
                    _ => panic!("{steps:?}"),
                })
            };
            let laboratory = Laboratory {
                model: ModelFolder::Disk(folder.path().to_owned()),
                find: &|_| Ok(ModelFolder::Disk(folder.path().to_owned())),
                problems: &|_, _| Vec::new(),
                judge_masks: &|_, _, _| Ok(Vec::new()),
                judge_clips: &judge,
                scene_prompts: &|_| Vec::new(),
                shows: &|_, _| Ok(Vec::new()),
                distance: &|_, _| Ok(0.0),
                pair_distance: &|_, _| Ok(Vec::new()),
                scratch: folder.path().to_owned(),
                control: &Control::silent(),
            };
            let evidence = run(&laboratory).unwrap();
            assert_eq!(evidence.rows.len(), 7);
            evidence.appears
        };
        assert!(appears(figures(0.95, 0.3)));
        // No nearer than the teacher's 8 evaluations, and one that stands still.
        assert!(!appears(figures(0.95, 0.4)));
        assert!(!appears(figures(0.85, 0.3)));
    }
}
