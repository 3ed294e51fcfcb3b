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
    let mut step = 0;
    move |event| match event {
        Event::Preview(picture) => {
            let Some(path) = &preview else { return };
            let path = if path.is_dir() {
                path.join(format!("step-{step:04}.png"))
            } else {
                path.clone()
            };
            let written = brisk_media::encode_png(&picture, &[])
                .map_err(Failure::from)
                .and_then(|bytes| Ok(brisk_store::write_atomic(&path, &bytes)?));
            if let Err(failure) = written {
                stages.line(&format!("warning: no preview: {failure}"));
            }
        }
        other => {
            if let Event::Step { index, .. } = other {
                step = index;
            }
            warnings.watch(&other);
            stages.show(&other);
        }
    }
}
