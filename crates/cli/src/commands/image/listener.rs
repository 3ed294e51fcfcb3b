//! What is shown of a run, and the previews that it writes.

use std::path::PathBuf;

use brisk::Event;

use crate::failure::Failure;
use crate::progress::Stages;
use crate::text;

/// Memory below which an estimate is not worth a line.
const LARGE: u64 = 1 << 30;

/// Shows what a model reports and writes previews.
pub fn listener(preview: Option<PathBuf>) -> impl FnMut(Event) + Send + 'static {
    let mut stages = Stages::new();
    let mut step = 0;
    move |event| match event {
        Event::SaveMemory => crate::allocator::release_memory(),
        Event::Step { index, .. } => {
            step = index;
            stages.show(&event);
        }
        Event::Memory {
            stage,
            needed,
            available,
        } if needed >= LARGE => {
            let free = available
                .map(|bytes| format!(" of {} available", text::bytes(bytes)))
                .unwrap_or_default();
            stages.line(&format!(
                "memory: about {}{free} for {stage}",
                text::bytes(needed)
            ));
        }
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
        Event::Done { .. } => stages.finish(),
        other => stages.show(&other),
    }
}
