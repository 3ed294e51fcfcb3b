//! What becomes of a request that did not work out.

use std::time::Duration;

use brisk_server::ApiError;

use crate::batch::Failure;
use crate::error::Error;
use crate::make::Trouble;
use crate::queue::Tries;

/// Workers that may die over a job.
pub(super) const MOST_CRASHES: u64 = 3;
/// Times that a job may be handed back.
const MOST_HANDED: u64 = 20;
/// Runs that may fail.
const MOST_ERRORS: u64 = 2;
/// How long a worker takes nothing when it has no room.
const REST: Duration = Duration::from_secs(30);

/// What becomes of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Fate {
    /// It is bad, or failed too often.
    Dead(Failure),
    /// Another worker tries it.
    Again(Tries),
    /// Another worker does it; this one takes no more for a while, and why, unless it ends.
    HandBack(Option<(String, Duration)>),
}

/// Decides.
pub(super) fn of(trouble: &Trouble, tries: Tries) -> Fate {
    let handed =
        |failure: Failure, why: String, how_long: Duration| match tries.handed + 1 >= MOST_HANDED {
            true => Fate::Dead(failure),
            false => Fate::HandBack(Some((why, how_long))),
        };
    match trouble {
        Trouble::Stopped => Fate::HandBack(None),
        Trouble::Outputs(Error::Usage(message)) => Fate::Dead(Failure::new("out_refused", message)),
        Trouble::Outputs(error) => {
            let failure = Failure::new("not_written", error.to_string());
            handed(failure, error.to_string(), REST)
        }
        Trouble::Request(error) => match error.status.as_u16() {
            503 | 429 => {
                let rest = error.retry_after.map_or(REST, Duration::from_secs);
                handed(Failure::from(error), error.code.to_owned(), rest)
            }
            _ if is_machines(error) => match tries.errors + 1 >= MOST_ERRORS {
                true => Fate::Dead(Failure::from(error)),
                false => Fate::Again(Tries {
                    errors: tries.errors + 1,
                    ..tries
                }),
            },
            _ => Fate::Dead(Failure::from(error)),
        },
    }
}

/// Whether a request may fare better on another machine.
fn is_machines(error: &ApiError) -> bool {
    error.status.is_server_error() || error.code == "exceeds_memory"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(error: ApiError) -> Trouble {
        Trouble::Request(error)
    }

    #[test]
    fn a_bad_request_dies_and_a_failed_run_is_tried_once_more() {
        let tries = Tries::default();
        let bad = request(ApiError::bad("invalid_value", "steps", "steps: 0"));
        assert!(matches!(of(&bad, tries), Fate::Dead(failure) if failure.code == "invalid_value"));
        let failed = || request(ApiError::internal("x"));
        let Fate::Again(second) = of(&failed(), tries) else {
            panic!("no second try")
        };
        assert_eq!(second.errors, 1);
        assert!(matches!(of(&failed(), second), Fate::Dead(_)));
    }

    #[test]
    fn a_full_machine_hands_back_and_rests() {
        let full = Trouble::Outputs(Error::NoRoom("no space".to_owned()));
        let fate = of(&full, Tries::default());
        assert!(matches!(fate, Fate::HandBack(Some((why, _))) if why == "no space"));
        let tries = Tries {
            handed: MOST_HANDED,
            ..Tries::default()
        };
        assert!(matches!(of(&full, tries), Fate::Dead(_)));
        assert_eq!(of(&Trouble::Stopped, tries), Fate::HandBack(None));
        let loading = request(ApiError::shutting_down());
        assert!(matches!(
            of(&loading, Tries::default()),
            Fate::HandBack(Some(_))
        ));
    }
}
