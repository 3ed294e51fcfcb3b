//! Many pictures with one model that stays in memory.
//!
//!     cargo run --release -p brisk --example batch -- pictures
#![allow(clippy::print_stdout, clippy::print_stderr)] // an example is a command

use brisk::{Control, ImageRequest, Options, keys};

const PROMPTS: [&str; 4] = ["red heart", "pizza", "rocket", "dog face"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "pictures".to_owned());
    std::fs::create_dir_all(&folder)?;
    let options = Options::new().with(&keys::RESIDENCY, "all".to_owned());
    let mut model = brisk::open_image_with("sana-emoji", options)?;
    for (seed, prompt) in PROMPTS.into_iter().enumerate() {
        let request = ImageRequest::new(prompt).with(&keys::SEED, seed as u64);
        for image in model.draw(&request, &Control::silent())? {
            let file = format!("{folder}/{}.png", prompt.replace(' ', "-"));
            std::fs::write(&file, brisk::png(&image)?)?;
            println!("{file}");
        }
    }
    Ok(())
}
