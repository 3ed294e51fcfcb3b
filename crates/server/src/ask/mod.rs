//! Requests that were read and checked against a model: what a job carries.

mod clips;
mod images;
mod masks;
mod messages;
mod opening;
mod pictures;
mod texts;

use std::sync::Arc;

use brisk::{ResultKind, StageCost, StageMemory};
use serde_json::{Map, Value};

use crate::error::{ApiError, Result};
use crate::fields::Endpoint;
use crate::queue::Lane;
use crate::served::{Models, Served};
use crate::settings::{LONGEST_RUN, Settings};
use crate::speed::Speeds;

pub use clips::ClipAsk;
pub use images::{Format, ImageAsk};
pub use masks::{MaskAsk, MaskFormat};
pub use opening::Opening;
use pictures::Pictures;
pub use texts::TextAsk;

/// What reading a request needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What may be asked for.
    pub settings: &'a Settings,
    /// Of whom.
    pub models: &'a Models,
    /// How fast they were so far.
    pub speeds: &'a Speeds,
    /// Bytes that models and jobs may take together.
    pub memory: u64,
    /// Hands freed memory back to the system.
    pub release_memory: fn(),
}

impl Context<'_> {
    /// Bytes of the stage that needs most; more than the server may use are refused.
    fn room_for(&self, stages: &[StageMemory]) -> Result<u64> {
        let needed = stages.iter().map(|stage| stage.needed).max().unwrap_or(0);
        if needed <= self.memory {
            return Ok(needed);
        }
        Err(ApiError::new(
            axum::http::StatusCode::BAD_REQUEST,
            "exceeds_memory",
            format!(
                "the request needs about {} MiB of memory, and the server may use {}; ask for a smaller size",
                needed >> 20,
                self.memory >> 20
            ),
        ))
    }
}

/// What is asked.
#[derive(Debug)]
pub enum Ask {
    /// Pictures.
    Images(ImageAsk),
    /// Texts.
    Texts(TextAsk),
    /// Masks of a picture.
    Masks(MaskAsk),
    /// A clip.
    Clips(ClipAsk),
}

impl Ask {
    /// Reads the body of an endpoint; `files` of pictures came beside it.
    ///
    /// # Errors
    /// The first thing that is wrong with it, by its field.
    pub fn read(
        context: Context<'_>,
        endpoint: Endpoint,
        body: Map<String, Value>,
        files: Vec<Vec<u8>>,
    ) -> Result<Self> {
        let ask = match endpoint {
            Endpoint::Generations | Endpoint::Edits => {
                ImageAsk::read(context, endpoint, body, files).map(Self::Images)
            }
            Endpoint::Chat | Endpoint::Completions => {
                TextAsk::read(context, endpoint, body).map(Self::Texts)
            }
            Endpoint::Segment => MaskAsk::read(context, endpoint, body, files).map(Self::Masks),
            Endpoint::Videos => ClipAsk::read(context, endpoint, body, files).map(Self::Clips),
        }?;
        ask.check_time(context)?;
        Ok(ask)
    }

    /// Refuses what would be stopped before its end. A model that has not run yet is not judged.
    fn check_time(&self, context: Context<'_>) -> Result<()> {
        let id = &self.model().id;
        let seconds = self.seconds(context.speeds);
        if seconds <= LONGEST_RUN.as_secs_f64() || !context.speeds.knows(id) {
            return Ok(());
        }
        let message = format!(
            "the request would take about {:.0} minutes, and jobs are stopped after {}; ask for less at once",
            seconds / 60.0,
            LONGEST_RUN.as_secs() / 60
        );
        let status = axum::http::StatusCode::BAD_REQUEST;
        Err(ApiError::new(status, "invalid_value", message))
    }

    /// The endpoint that was asked.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Self::Images(ask) => ask.endpoint,
            Self::Texts(ask) => ask.endpoint,
            Self::Masks(_) => Endpoint::Segment,
            Self::Clips(_) => Endpoint::Videos,
        }
    }

    /// What jobs and metrics call it.
    pub fn kind(&self) -> &'static str {
        self.endpoint().job_kind()
    }

    /// What it gives.
    pub fn gives(&self) -> ResultKind {
        self.endpoint().result()
    }

    /// The model.
    pub fn model(&self) -> &Arc<Served> {
        match self {
            Self::Images(ask) => &ask.model,
            Self::Texts(ask) => &ask.model,
            Self::Masks(ask) => &ask.model,
            Self::Clips(ask) => &ask.model,
        }
    }

    /// Seed of the first result, where chance has a say.
    pub fn seed(&self) -> Option<u64> {
        match self {
            Self::Images(ask) => Some(ask.seed),
            Self::Texts(ask) => Some(ask.seed),
            Self::Masks(_) => None,
            Self::Clips(ask) => Some(ask.seed),
        }
    }

    /// Number of results, as far as it is known before they are made.
    pub fn count(&self) -> usize {
        match self {
            Self::Images(ask) => ask.count(),
            Self::Texts(ask) => ask.count(),
            Self::Masks(ask) => ask.sought,
            Self::Clips(_) => 1,
        }
    }

    /// What it computes, stage by stage, where that is counted.
    pub fn costs(&self) -> &[StageCost] {
        match self {
            Self::Images(ask) => &ask.costs,
            Self::Texts(ask) => &ask.costs,
            Self::Clips(ask) => &ask.costs,
            Self::Masks(_) => &[],
        }
    }

    /// Seconds that it takes, as far as is known.
    pub fn seconds(&self, speeds: &Speeds) -> f64 {
        let opening = match self {
            Self::Clips(ask) => ask.opening.as_ref(),
            Self::Images(_) | Self::Texts(_) | Self::Masks(_) => None,
        };
        let of_opening =
            opening.map_or(0.0, |first| speeds.seconds(&first.drawer.id, &first.costs));
        of_opening + speeds.seconds(&self.model().id, self.costs())
    }

    /// The thread that carries it out.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Images(_) | Self::Masks(_) | Self::Clips(_) => Lane::Pictures,
            Self::Texts(_) => Lane::Texts,
        }
    }

    /// Whether the reply is a stream.
    pub fn streams(&self) -> bool {
        match self {
            Self::Images(ask) => ask.stream,
            Self::Texts(ask) => ask.stream,
            Self::Masks(_) | Self::Clips(_) => false,
        }
    }

    /// What is asked for, for a log that may show it.
    pub fn prompt(&self) -> String {
        match self {
            Self::Images(ask) => ask.prompt(),
            Self::Texts(ask) => ask.shown_prompt.clone(),
            Self::Masks(_) => String::new(),
            Self::Clips(ask) => ask.prompt().to_owned(),
        }
    }
}

/// The seed that a request gives, or one that is drawn: at most what JavaScript keeps exactly, with room
/// for one a result.
pub fn seed(given: Option<u64>) -> u64 {
    given.unwrap_or_else(|| {
        let (drawn, _) = uuid::Uuid::new_v4().as_u64_pair();
        // The upper half of a random id holds its version in bits 12 to 15; the rest is random.
        let random = (drawn >> 16 << 12) | (drawn & 0xfff);
        random >> 9
    })
}

/// Seeds of the results of a request: the first and those that follow it.
///
/// # Errors
/// The last one would be larger than a seed can be.
fn seeds(first: u64, count: usize) -> Result<Vec<u64>> {
    let last = first + count as u64 - 1;
    if last > crate::fields::MAX_SEED {
        let problem = format!("{first} leaves no room for {count} results; 2^53-1 is the last");
        return Err(ApiError::invalid("seed", problem));
    }
    Ok((first..=last).collect())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A request for one picture of a model that is not there.
    pub fn image_ask(model: &str) -> ImageAsk {
        ImageAsk::blank(Arc::new(Served::absent(model)))
    }

    #[test]
    fn drawn_seeds_differ_and_leave_room() {
        let drawn: std::collections::BTreeSet<u64> = (0..100).map(|_| seed(None)).collect();
        assert_eq!(drawn.len(), 100);
        assert!(drawn.iter().all(|seed| *seed < 1 << 51));
        assert!(drawn.iter().any(|seed| *seed > 1 << 48));
        assert_eq!(seed(Some(7)), 7);
        assert_eq!(seeds(7, 3).unwrap(), [7, 8, 9]);
        assert!(seeds(crate::fields::MAX_SEED, 2).is_err());
    }
}
