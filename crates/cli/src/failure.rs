//! The one way a command fails: a message and an exit code.

use std::error::Error;
use std::fmt;

/// Result of a command.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Why a command stopped.
#[derive(Debug)]
pub struct Failure {
    message: String,
    usage: bool,
}

impl Failure {
    /// The work failed: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            usage: false,
        }
    }

    /// The command line asks for something that makes no sense: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            usage: true,
        }
    }

    /// 1 or 2.
    pub fn exit_code(&self) -> u8 {
        if self.usage { 2 } else { 1 }
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
        let usage = error
            .downcast_ref::<brisk_pipelines::Error>()
            .or_else(|| match error.downcast_ref::<brisk_train::Error>() {
                Some(brisk_train::Error::Pipeline(error)) => Some(error),
                _ => None,
            })
            .is_some_and(brisk_pipelines::Error::is_usage);
        Self {
            message: with_causes(error),
            usage,
        }
    }
}

/// The message and its causes, leaving out what a message already quotes.
fn with_causes(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    without_backtrace(message)
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
        let error = brisk_pipelines::Error::Request {
            option: "steps",
            message: "0".to_owned(),
        };
        assert_eq!(Failure::from(error).exit_code(), 2);
    }
}
