//! Draws a picture with the model in the box, and shows the steps.
//!
//!     cargo run --release -p brisk --example picture -- "red heart" heart.png
#![allow(clippy::print_stdout, clippy::print_stderr)] // an example is a command

use brisk::{Control, Event, ImageRequest, keys};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let prompt = arguments.next().unwrap_or_else(|| "red heart".to_owned());
    let file = arguments.next().unwrap_or_else(|| "heart.png".to_owned());

    let mut model = brisk::open_image("sana-emoji")?;
    let plan = model.plan(&ImageRequest::new(prompt).with(&keys::SEED, 7))?;
    let control = Control::new(|event| {
        if let Event::Step { index, total, .. } = event {
            eprintln!("{index}/{total}");
        }
    });
    let images = model.generate(&plan, &control)?;
    // The file says how it was made, as those of `brisk image` do.
    std::fs::write(
        &file,
        brisk::described_png(&images[0], &plan, 0, "sana-emoji")?,
    )?;
    println!("{file}");
    Ok(())
}
