//! The best of many pictures for a prompt, by a judge.

mod kept;

use std::path::Path;

use brisk_media::Picture;
use brisk_pipelines::events::{StepClock, Work};
use brisk_pipelines::judging::{Judge, Judgement, Leaders, Rule};
use brisk_pipelines::options::keys;
use brisk_pipelines::{Control, Error, ImageModel, ImagePlan, ImageRequest, Result};
use serde::Serialize;

use crate::{describe, described_png};
use kept::{Entry, KeptCandidates};

/// How many pictures are drawn, and which stay.
#[derive(Debug, Clone)]
pub struct BestOf<'a> {
    /// Pictures to draw.
    pub candidates: usize,
    /// Those of them that are drawn together.
    pub batch: usize,
    /// Pictures that stay.
    pub keep: usize,
    /// How they are chosen.
    pub rule: Rule,
    /// Folder for every picture with its judgement: what is there is neither drawn nor judged again.
    pub folder: Option<&'a Path>,
}

/// A judged picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// Its seed, by which it is drawn again alone.
    pub seed: u64,
    /// What the judge said.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// Its place among those that stay, the first of them 0.
    pub kept_as: Option<usize>,
}

/// A picture that stays.
#[derive(Debug)]
pub struct Winner {
    /// Its seed.
    pub seed: u64,
    /// What the judge said.
    pub judgement: Judgement,
    /// Its PNG file, which says how it was drawn.
    pub png: Vec<u8>,
    /// Its pixels.
    pub picture: Picture,
}

/// What [`best_of`] gives.
#[derive(Debug)]
pub struct Best {
    /// The pictures that stay: the best first, or in the order of the bracket.
    pub winners: Vec<Winner>,
    /// Every picture that took part.
    pub candidates: Vec<Candidate>,
    /// Those of them that were found in the folder.
    pub found: usize,
}

/// Options that leave nothing to choose from, or tie pictures to one another.
const REFUSED: [&str; 4] = ["images", "latents", "codes", "greedy"];

/// Draws many pictures for the one prompt of `request`, by seeds that follow one another, and keeps the best. `name` is
/// the model's in descriptions.
///
/// # Errors
/// Options with which pictures would not differ by their seeds alone; a prompt that the judge cannot read; those of the
/// model and of the judge; a folder that cannot be written, or that holds pictures of another request.
pub fn best_of(
    model: &mut dyn ImageModel,
    judge: &mut dyn Judge,
    request: &ImageRequest,
    name: &str,
    options: &BestOf<'_>,
    control: &Control,
) -> Result<Best> {
    let [prompt] = &request.prompts[..] else {
        return Err(Error::request(
            "prompt",
            "one prompt at a time has a best picture",
        ));
    };
    judge.check(prompt)?;
    let single = model.plan(request)?;
    check(request, &single)?;
    let (candidates, keep) = options.rule.numbers(options.candidates, options.keep);
    if candidates == 0 || keep == 0 {
        return Err(Error::request(
            "best-of",
            "is 0; expected at least one picture",
        ));
    }
    let first = request.options.get(&keys::SEED).unwrap_or(0);
    let seed = |place: usize| first.wrapping_add(place as u64);
    let alone = |model: &dyn ImageModel, place: usize| {
        model.plan(&request.clone().with(&keys::SEED, seed(place)))
    };
    let mut kept = match options.folder {
        Some(folder) => Some(KeptCandidates::open(
            folder,
            &judge.name(),
            &describe(&single, 0, name),
        )?),
        None => None,
    };
    let mut leaders = Leaders::new(options.rule, candidates, keep);
    let mut judged: Vec<Judgement> = Vec::with_capacity(candidates);
    // Pictures that lead, by their places.
    let mut pictures: Vec<(usize, Vec<u8>, Picture)> = Vec::new();
    let mut found = 0;
    control.stage("candidates", Work::Run, candidates);
    let mut clock = StepClock::new(candidates);
    while judged.len() < candidates {
        control.check()?;
        let place = judged.len();
        if let Some(Entry {
            judgement,
            png,
            picture,
        }) = kept
            .as_ref()
            .map(|kept| kept.find(seed(place)))
            .transpose()?
            .flatten()
        {
            leaders.add(place, judgement.clone());
            judged.push(judgement);
            pictures.push((place, png, picture));
            found += 1;
            retain(&mut pictures, &leaders);
            clock.steps(1, control);
            continue;
        }
        let open = (place..candidates).take(options.batch.max(1));
        let missing = open.take_while(|at| kept.as_ref().is_none_or(|kept| !kept.has(seed(*at))));
        let count = missing.count();
        let batch = request
            .clone()
            .with(&keys::SEED, seed(place))
            .with(&keys::IMAGES, count);
        let plan = model.plan(&batch)?;
        let quiet = Control::silent().with_cancel(control.cancel_flag());
        let images = model.generate(&plan, &quiet)?;
        let drawn: Vec<Picture> = images.iter().map(|image| image.picture.clone()).collect();
        let judgements = judge.judge(prompt, &drawn, &quiet)?;
        if images.len() != count || judgements.len() != count {
            return Err(Error::folder(
                judge.name(),
                format!("{} judgements of {count} pictures", judgements.len()),
            ));
        }
        for (at, (image, judgement)) in images.iter().zip(judgements).enumerate() {
            let place = place + at;
            let png = described_png(image, &alone(&*model, place)?, 0, name)?;
            if let Some(kept) = &mut kept {
                kept.add(seed(place), &judgement, &png)?;
            }
            leaders.add(place, judgement.clone());
            judged.push(judgement);
            pictures.push((place, png, image.picture.clone()));
        }
        retain(&mut pictures, &leaders);
        clock.steps(count, control);
    }
    let places = leaders.places();
    let winners = places.iter().filter_map(|place| {
        let at = pictures.iter().position(|(known, _, _)| known == place)?;
        let (_, png, picture) = pictures.swap_remove(at);
        Some(Winner {
            seed: seed(*place),
            judgement: judged[*place].clone(),
            png,
            picture,
        })
    });
    let winners = winners.collect();
    let candidates = judged
        .iter()
        .enumerate()
        .map(|(place, judgement)| Candidate {
            seed: seed(place),
            judgement: judgement.clone(),
            kept_as: places.iter().position(|kept| *kept == place),
        });
    Ok(Best {
        winners,
        candidates: candidates.collect(),
        found,
    })
}

/// Refuses options with which a picture is not its seed's.
fn check(request: &ImageRequest, plan: &ImagePlan) -> Result<()> {
    let given = request.options.definitions();
    if let Some(option) = given
        .into_iter()
        .find(|option| REFUSED.contains(&option.name))
    {
        return Err(Error::request(
            option.name,
            "has no place beside `best-of`, whose pictures differ by their seeds; leave it out",
        ));
    }
    match plan.independent {
        true => Ok(()),
        false => Err(Error::request(
            "best-of",
            "needs pictures that are drawn by their own seeds alone; leave out what ties them together",
        )),
    }
}

fn retain(pictures: &mut Vec<(usize, Vec<u8>, Picture)>, leaders: &Leaders) {
    let places = leaders.places();
    pictures.retain(|(place, _, _)| places.contains(place));
}
