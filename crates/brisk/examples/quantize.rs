//! Makes the model in the box smaller, 4-bit weights beside a 16-bit branch, and draws with the result.
//!
//!     cargo run --release -p brisk --example quantize -- small heart.png
#![allow(clippy::print_stdout, clippy::print_stderr)] // an example is a command

use brisk::quantize::{QuantizeRequest, quantize};
use brisk::{BoxModel, Control, Event, ImageRequest};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let output = arguments.next().unwrap_or_else(|| "small".to_owned());
    let file = arguments.next().unwrap_or_else(|| "heart.png".to_owned());

    let folder = BoxModel::named("sana-emoji").and_then(BoxModel::folder);
    let folder = folder.ok_or("this build has no model in the box")?;
    let mut model = brisk::open_image("sana-emoji")?;
    let layers = model.quantizable().ok_or("it has no 4-bit layout")?;
    // Drawn in full precision to see what goes into the layers.
    let prompts = ["red heart", "dog face", "pizza", "rocket"].map(str::to_owned);
    let request = QuantizeRequest::new("sana-emoji", &output, prompts.to_vec());
    let control = Control::new(|event| {
        if let Event::Log(line) = event {
            eprintln!("{line}");
        }
    });
    let done = quantize(&folder, layers, &request, &control)?;
    let [before, after] = done.components[0].bytes;
    println!("{output}: {before} bytes became {after}");

    let images = brisk::open_image(&output)?.draw(&ImageRequest::new("red heart"), &control)?;
    std::fs::write(&file, brisk::png(&images[0])?)?;
    println!("{file}");
    Ok(())
}
