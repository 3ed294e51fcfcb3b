//! Writes an answer with the model in the box and prints the text while it fills in.
//!
//!     cargo run --release -p brisk --example text_stream
#![allow(clippy::print_stdout, clippy::print_stderr)] // an example is a command

use brisk::{Control, Event, TextRequest};

const QUESTION: &str = "Mia has 34 beads. Monday: finds 7 more. Tuesday: gives 5 to Tom. \
    Wednesday: doubles the number. How many beads does Mia have now?";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = brisk::open_text("llada-arithmetic")?;
    let tokenizer = model.tokenizer().cloned();
    let control = Control::new(move |event| {
        if let (
            Event::Canvas {
                tokens,
                mask,
                start,
                ..
            },
            Some(tokenizer),
        ) = (event, &tokenizer)
        {
            let decided: Vec<u32> = tokens[start..]
                .iter()
                .copied()
                .filter(|id| *id != mask)
                .collect();
            eprintln!("{}", tokenizer.decode_known(&decided).unwrap_or_default());
        }
    })
    .with_canvas();
    for answer in model.write(&TextRequest::new(QUESTION), &control)? {
        println!("{}", answer.text);
    }
    Ok(())
}
