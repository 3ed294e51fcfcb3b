//! The first frame of a clip.

use brisk_media::Picture;
use brisk_pipelines::options::{Options, keys};
use brisk_pipelines::{Control, Error, ImageModel, ImageRequest, Result, ResultKind, registry};

/// The first frame of a clip, drawn from a prompt by a model of pictures, at a size where the model draws it, else at the
/// model's own.
///
/// # Errors
/// No such model, or what it refuses.
pub fn draw_first_frame(
    model: Option<&str>,
    prompt: &str,
    (width, height): (usize, usize),
    seed: u64,
    control: &Control,
) -> Result<Picture> {
    let found = crate::find(
        model,
        None,
        ResultKind::Pictures,
        &brisk_store::hub::NoProgress,
    )?;
    let mut drawer: Box<dyn ImageModel> =
        registry::open_image(&found.folder, &crate::settings(Options::new()))?;
    let own = ImageRequest::new(prompt).with(&keys::SEED, seed);
    let sized = own
        .clone()
        .with(&keys::WIDTH, width)
        .with(&keys::HEIGHT, height);
    let (own_width, own_height) = drawer.usual_size();
    // A model of small pictures draws nothing good in large ones.
    let fits = own_width * own_height * 2 >= width * height;
    let plan = match drawer.plan(&sized) {
        Ok(plan) if fits => plan,
        _ => drawer.plan(&own)?,
    };
    let images = drawer.generate(&plan, control)?;
    let first = images.into_iter().next();
    first
        .map(|image| image.picture)
        .ok_or_else(|| Error::folder(found.name, "it drew nothing"))
}
