//! The one way a command fails: a message and an exit code.

use std::error::Error;
use std::fmt;

/// Result of a command.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Why a command stopped.
#[derive(Debug)]
pub struct Failure {
    message: String,
    exit_code: u8,
}

/// Exit codes: the work failed, bad usage, stopped on request (128 + SIGINT, as shells have it).
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const STOPPED: u8 = 130;

impl Failure {
    /// The work failed: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit_code: FAILED,
        }
    }

    /// Somebody asked to stop.
    pub fn stopped(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit_code: STOPPED,
        }
    }

    /// The command line asks for something that makes no sense: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit_code: USAGE,
        }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// The line that ends a command.
    pub fn line(&self) -> String {
        if self.exit_code == STOPPED {
            return self.message.clone();
        }
        format!("error: {}", self.message)
    }

    /// Puts the place where it happened before the message.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

// `Failure` is no `Error` itself, which lets every error become one.
impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: &(dyn Error + 'static) = &error;
        let request = error.downcast_ref::<brisk::Error>().or_else(|| {
            match error.downcast_ref::<brisk_train::Error>() {
                Some(brisk_train::Error::Pipeline(error)) => Some(error),
                _ => None,
            }
        });
        let mut message = without_backtrace(brisk_store::with_causes(error));
        if let Some(request) = request {
            message = with_dashes(&message);
            if let Some(option) = request.option() {
                message = message.replacen(option, &format!("--{option}"), 1);
            }
        }
        if let Some(brisk::Error::WrongResult { gives, model, .. }) = request {
            let verbs: Vec<&str> = gives.iter().map(|kind| verb(*kind)).collect();
            // A model in the box is named without the remark that messages add.
            let name = brisk::BoxModel::all()
                .iter()
                .find(|boxed| boxed.label() == model);
            let name = name.map_or(model.as_str(), |boxed| boxed.name);
            message = format!("{message}: brisk {} --model {name} …", verbs.join(" or "));
        }
        let exit_code = match request {
            Some(brisk::Error::Cancelled) => STOPPED,
            Some(error) if error.is_usage() => USAGE,
            _ => FAILED,
        };
        Self { message, exit_code }
    }
}

/// The library writes options as `name`; on a command line they are --name.
fn with_dashes(message: &str) -> String {
    let mut written = String::with_capacity(message.len());
    let mut parts = message.split('`');
    written.push_str(parts.next().unwrap_or_default());
    let mut quoted = true;
    for part in parts {
        let known = quoted
            && brisk::ResultKind::ALL
                .into_iter()
                .any(|kind| brisk::registry::option(kind, part).is_some());
        match (quoted, known) {
            (true, true) => {
                written.push_str("--");
                written.push_str(part);
            }
            (true, false) => {
                written.push('`');
                written.push_str(part);
                written.push('`');
            }
            (false, _) => written.push_str(part),
        }
        quoted = !quoted;
    }
    written
}

/// The verb that gives a kind of result.
pub fn verb(kind: brisk::ResultKind) -> &'static str {
    match kind {
        brisk::ResultKind::Pictures => "image",
        brisk::ResultKind::Text => "text",
        brisk::ResultKind::Masks => "masks",
        brisk::ResultKind::Clips => "video",
    }
}

/// Tensor errors carry a backtrace in their text where RUST_BACKTRACE is set; it is of no use here.
fn without_backtrace(mut message: String) -> String {
    if let Some(start) = message.find("\n   0: ") {
        message.truncate(start);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as _)
        }
    }

    #[test]
    fn causes_are_told_once() {
        let error = Layer(
            "a.bin: no space",
            Some(Box::new(Layer(
                "no space",
                Some(Box::new(Layer("disk", None))),
            ))),
        );
        let failure = Failure::from(error);
        assert_eq!(failure.to_string(), "a.bin: no space: disk");
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn backtraces_are_cut_off() {
        let error = Layer(
            "shapes differ\n   0: candle_core::error::Error::bt\n   1: main\n",
            None,
        );
        assert_eq!(Failure::from(error).to_string(), "shapes differ");
    }

    #[test]
    fn a_bad_request_is_bad_usage() {
        let failure = Failure::from(brisk::Error::request("steps", "0"));
        assert_eq!(failure.exit_code(), 2);
        assert_eq!(failure.to_string(), "--steps: 0");
        let error = brisk::Error::request("pag-layers", "has no effect without `pag-scale`, `x`");
        assert_eq!(
            Failure::from(error).to_string(),
            "--pag-layers: has no effect without --pag-scale, `x`"
        );
        let failure = Failure::from(brisk::Error::Cancelled);
        assert_eq!((failure.exit_code(), &*failure.line()), (130, "cancelled"));
    }
}
