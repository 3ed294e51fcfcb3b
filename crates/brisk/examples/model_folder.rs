//! Opens a folder of one's own, whatever it holds, and says what can be asked of it.
//!
//!     cargo run --release -p brisk --example model_folder -- path/to/folder
#![allow(clippy::print_stdout, clippy::print_stderr)] // an example is a command

use brisk::Model;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "sana-emoji".to_owned());
    let (label, support) = match brisk::open(&name)? {
        Model::Image(model) => {
            let (width, height) = model.usual_size();
            println!("draws pictures of {width} x {height} pixels");
            (model.label().to_owned(), model.support())
        }
        Model::Text(model) => {
            println!("writes text, over {} positions", model.context());
            (model.label().to_owned(), model.support())
        }
        Model::Masks(model) => {
            println!("finds masks, in a frame of {0} x {0} pixels", model.frame());
            (model.label().to_owned(), model.support())
        }
        Model::Video(model) => {
            let from = match model.needs_image() {
                true => "a picture and a text",
                false => "a text",
            };
            println!("makes clips of {from}");
            (model.label().to_owned(), model.support())
        }
    };
    println!("{label} honours:");
    for honoured in support.honoured() {
        println!("  {:24}{}", honoured.option.name, honoured.option.help);
    }
    Ok(())
}
