//! The previews that a run writes.

use std::path::PathBuf;

use brisk::Event;

use crate::failure::Failure;
use crate::progress::{Stages, Warnings};

/// Shows what a model reports, writes previews and keeps warnings.
pub fn listener(
    preview: Option<PathBuf>,
    warnings: Warnings,
) -> impl FnMut(Event) + Send + 'static {
    let mut stages = Stages::new();
    move |event| match event {
        Event::Preview {
            image,
            step,
            picture,
        } => {
            let Some(path) = &preview else { return };
            let path = match (path.is_dir(), image) {
                (true, 0) => path.join(format!("step-{step:04}.png")),
                (true, image) => path.join(format!("step-{step:04}-{image}.png")),
                (false, 0) => path.clone(),
                // One file shows the first picture.
                (false, _) => return,
            };
            let written = brisk_media::encode_png(&picture, &[])
                .map_err(Failure::from)
                .and_then(|bytes| Ok(brisk_store::write_atomic(&path, &bytes)?));
            if let Err(failure) = written {
                stages.line(&format!("warning: no preview: {failure}"));
            }
        }
        other => {
            warnings.watch(&other);
            stages.show(&other);
        }
    }
}
