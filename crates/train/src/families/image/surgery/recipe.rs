//! How a model of another depth is trained on.

use brisk_pipelines::folder::ComponentFolder;
use brisk_store::ModelFolder;
use serde_json::Value;

use crate::error::{Error, JsonContext, Result};
use crate::families::image::{TEXT_ENCODER, TRANSFORMER};
use crate::optimiser::OptimiserKind;
use crate::recipe::{ImageRecipe, Recipe, built_in_names};

/// Name of the recipe in a model's folder.
pub(super) const FILE: &str = "recipe.json";
/// Class of the transformers that are trained.
const CLASS: &str = "SanaTransformer2DModel";
/// Keys of a transformer's configuration that are not its shape.
const NO_SHAPE: [&str; 3] = ["num_layers", "_class_name", "_diffusers_version"];

/// The recipe that trains a model on: its folder's own, else a built-in one with the shapes of the model; none for
/// models of another kind.
///
/// # Errors
/// A recipe in the folder that cannot be read, or is for something else.
pub fn recipe_of(folder: &ModelFolder) -> Result<Option<ImageRecipe>> {
    if folder.exists(FILE) {
        let label = format!("{}/{FILE}", folder.label());
        return match Recipe::parse(&folder.read(FILE)?, &label)? {
            Recipe::Image(recipe) => Ok(Some(recipe)),
            other => Err(Error::Recipe(format!(
                "{label} is for `brisk train {}`; give --recipe",
                other.kind()
            ))),
        };
    }
    let place = ComponentFolder::new(folder, TRANSFORMER);
    if !place.has_config() {
        return Ok(None);
    }
    let transformer = place.config_json()?;
    match transformer.get("_class_name") {
        Some(class) if class == CLASS => shaped(folder, &transformer, None).map(Some),
        _ => Ok(None),
    }
}

/// The recipe for a transformer of this configuration in the rest of a folder, as a document. By CAME-8bit, as
/// SANA-1.5 trains grown models.
pub(super) fn document(
    folder: &ModelFolder,
    transformer: &Value,
    base: Option<&ImageRecipe>,
) -> Result<Value> {
    let mut recipe = shaped(folder, transformer, base)?;
    if base.is_none() {
        recipe.training.optimiser = OptimiserKind::Came8bit;
        recipe.training.betas = None;
    }
    serde_json::to_value(Recipe::Image(recipe)).in_document(FILE)
}

/// `base`, by default the built-in recipe of the shape that is nearest, with a model's shapes.
fn shaped(
    folder: &ModelFolder,
    transformer: &Value,
    base: Option<&ImageRecipe>,
) -> Result<ImageRecipe> {
    let mut recipe = match base {
        Some(base) => base.clone(),
        None => nearest(transformer)?,
    };
    recipe.transformer = transformer.clone();
    recipe.text_encoder = ComponentFolder::new(folder, TEXT_ENCODER).config_json()?;
    Ok(recipe)
}

/// The built-in recipe that agrees in most keys with a transformer's shape.
fn nearest(transformer: &Value) -> Result<ImageRecipe> {
    let agreeing = |recipe: &ImageRecipe| {
        let keys = recipe.transformer.as_object().into_iter().flatten();
        keys.filter(|(key, value)| {
            !NO_SHAPE.contains(&key.as_str()) && transformer.get(key) == Some(value)
        })
        .count()
    };
    let mut best: Option<(usize, ImageRecipe)> = None;
    for name in built_in_names() {
        if let Recipe::Image(recipe) = Recipe::open(name)? {
            let agreeing = agreeing(&recipe);
            if best.as_ref().is_none_or(|(most, _)| agreeing > *most) {
                best = Some((agreeing, recipe));
            }
        }
    }
    match best {
        Some((_, recipe)) => Ok(recipe),
        None => Err(Error::Recipe(
            "no built-in recipe trains such a model".to_owned(),
        )),
    }
}
