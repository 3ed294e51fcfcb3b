//! Watching a forward pass.

use crate::tensor::Tensor;
use std::fmt;

type See<'a> = dyn FnMut(&str, &Tensor) + 'a;

/// Who watches a forward pass, and how closely. Values come under the names of the checkpoint, as each
/// model's pass documents them.
pub struct Trace<'a> {
    see: Option<&'a mut See<'a>>,
    details: bool,
    /// Stands before names.
    prefix: String,
}

impl fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (watched, details) = (self.see.is_some(), self.details);
        write!(f, "Trace {{ watched: {watched}, details: {details} }}")
    }
}

impl<'a> Trace<'a> {
    /// Nobody watches.
    pub fn none() -> Self {
        Self {
            see: None,
            details: false,
            prefix: String::new(),
        }
    }

    /// `see` gets what a pass holds in its hands anyway: blocks and their parts run as they do unwatched,
    /// and what follows may write over a value that was seen.
    pub fn parts(see: &'a mut See<'a>) -> Self {
        Self {
            see: Some(see),
            ..Self::none()
        }
    }

    /// `see` also gets values inside blocks, which then run step by step: what would follow a layer in the
    /// same pass over memory runs after it.
    pub fn details(see: &'a mut See<'a>) -> Self {
        Self {
            details: true,
            ..Self::parts(see)
        }
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.see.is_some()
    }

    /// Whether values inside blocks are wanted.
    pub fn is_detailed(&self) -> bool {
        self.details
    }

    /// Shows a value.
    pub fn see(&mut self, name: &str, x: &Tensor) {
        match &mut self.see {
            Some(see) if self.prefix.is_empty() => see(name, x),
            Some(see) => see(&format!("{}{name}", self.prefix), x),
            None => {}
        }
    }

    /// Shows a value inside a block, if those are wanted.
    pub fn detail(&mut self, name: &str, x: &Tensor) {
        if self.details {
            self.see(name, x);
        }
    }

    /// The trace of the part called `name`, which stands before its names.
    pub fn within(&mut self, name: &str) -> Trace<'_> {
        let prefix = match self.see {
            Some(_) => format!("{}{name}.", self.prefix),
            None => String::new(),
        };
        Trace {
            see: match &mut self.see {
                Some(see) => Some(&mut **see),
                None => None,
            },
            details: self.details,
            prefix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(trace: &mut Trace) {
        let x = Tensor::new(1f32).unwrap();
        trace.see("a", &x);
        let mut block = trace.within("blocks.0");
        block.detail("inside", &x);
        block.within("ff").see("input", &x);
        trace.see("b", &x);
    }

    #[test]
    fn names_say_where_values_are() {
        let seen = |details: bool| {
            let mut names = Vec::new();
            let mut see = |name: &str, _: &Tensor| names.push(name.to_owned());
            pass(&mut match details {
                true => Trace::details(&mut see),
                false => Trace::parts(&mut see),
            });
            names
        };
        assert_eq!(seen(false), ["a", "blocks.0.ff.input", "b"]);
        assert_eq!(
            seen(true),
            ["a", "blocks.0.inside", "blocks.0.ff.input", "b"]
        );
        pass(&mut Trace::none());
    }
}
