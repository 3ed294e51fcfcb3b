//! All jobs of a caller, as they change.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::response::Response;

use super::{Source, event, response};
use crate::app::App;
use crate::security::Caller;

struct Snapshots {
    app: Arc<App>,
    caller: Caller,
    /// Numbers of the changes that were sent, by job.
    sent: HashMap<String, u64>,
}

/// A stream of snapshots: all that there are, then each that changes.
pub fn reply(app: &Arc<App>, caller: Caller) -> Response {
    let source = Snapshots {
        app: Arc::clone(app),
        caller,
        sent: HashMap::new(),
    };
    response(source, app.pulse.subscribe(), app.metrics.stream())
}

impl Source for Snapshots {
    fn next(&mut self, ready: &mut Vec<Bytes>) -> bool {
        let jobs = self.app.kept.jobs(&self.caller.name);
        self.sent
            .retain(|id, _| jobs.iter().any(|job| job.id == *id));
        for job in jobs {
            let number = job.number();
            if self.sent.get(&job.id) == Some(&number) {
                continue;
            }
            self.sent.insert(job.id.clone(), number);
            ready.push(event(Some("job"), &job.snapshot()));
        }
        self.app.is_draining()
    }
}
