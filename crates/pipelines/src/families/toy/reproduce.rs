//! Rectified flow (arXiv 2209.03003): on a straight way one step is as good as many.

use crate::error::Result;
use crate::options::keys;
use crate::registry;
use crate::reproduce::{Evidence, Laboratory, Measured, Reproduction};
use crate::request::{ImageModel, ImageRequest, OpenSettings};

/// The claim.
pub(super) static STRAIGHT: Reproduction = Reproduction {
    paper: "rectified-flow",
    title: "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
    arxiv: "2209.03003",
    claim: "where the way from noise to data is straight, one Euler step ends where many do",
    reported: &[],
    reported_on: "",
    model: "toy",
    beside: None,
    run,
};

/// Largest difference of a byte that counts as none: that of rounding.
const MOST: u8 = 1;

fn run(laboratory: &Laboratory) -> Result<Evidence> {
    let mut model = registry::open_image(&laboratory.model, &OpenSettings::default())?;
    let many = pixels(&mut *model, 100, laboratory)?;
    let mut rows = Vec::new();
    let mut largest = 0;
    for steps in [1, 2, 10] {
        let pairs = pixels(&mut *model, steps, laboratory)?
            .into_iter()
            .zip(&many);
        let difference = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        largest = largest.max(difference);
        rows.push(Measured::new(
            format!("{steps} steps"),
            "",
            format!("{difference} off 100 steps, of 255"),
        ));
    }
    Ok(Evidence {
        setting: model.label().to_owned(),
        rows,
        effect: format!("no value differs by more than {MOST}"),
        appears: largest <= MOST,
    })
}

fn pixels(model: &mut dyn ImageModel, steps: usize, laboratory: &Laboratory) -> Result<Vec<u8>> {
    let request = ImageRequest::new("anything").with(&keys::STEPS, steps);
    let images = model.draw(&request, laboratory.control)?;
    let pictures = images.into_iter().map(|image| image.picture.pixels);
    Ok(pictures.flatten().collect())
}
