//! Why a template could not be rendered.

/// Result of a part of a rendering.
pub type Result<T> = std::result::Result<T, Fault>;

/// A message, and the line of the template that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub message: String,
    pub line: Option<usize>,
}

impl Fault {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            line: None,
        }
    }

    /// The line, where the fault has none yet.
    pub fn at(mut self, line: usize) -> Self {
        self.line.get_or_insert(line);
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl From<minijinja::Error> for Fault {
    fn from(error: minijinja::Error) -> Self {
        let kind = error.kind().to_string();
        Self {
            message: match error.detail() {
                Some(detail) => format!("{kind}: {detail}"),
                None => kind,
            },
            line: error.line(),
        }
    }
}
