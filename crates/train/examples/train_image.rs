//! Temporary: starts a run before the command line can. To be removed with the first `brisk train`.
//!
//! Arguments: DATA VAE_FOLDER OUT [RECIPE] [MINUTES]
#![allow(clippy::print_stdout)]

use brisk_train::data::emoji::EmojiData;
use brisk_train::recipe::Recipe;
use brisk_train::{Control, train_image};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or_else(|| format!("missing {what}"));
    let data = next("DATA")?;
    let vae = next("VAE_FOLDER")?;
    let out = next("OUT")?;
    let recipe = next("RECIPE").unwrap_or_else(|_| "emoji-image".to_owned());
    let minutes = next("MINUTES").ok();
    let Recipe::Image(mut recipe) = Recipe::open(&recipe)? else {
        return Err(format!("{recipe} is a recipe of another kind").into());
    };
    if let Some(minutes) = minutes {
        recipe.training.max_minutes = Some(minutes.parse()?);
    }
    let data = EmojiData::open(data.as_ref())?;
    let mut control = Control::new(|event| println!("{event:?}"));
    let outcome = train_image(&recipe, &data, vae.as_ref(), out.as_ref(), &mut control)?;
    println!("{outcome:?}");
    Ok(())
}
