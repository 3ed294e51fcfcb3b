//! Named numbers that decide what is measured.

use std::fmt;
use std::ops::RangeInclusive;

/// A number that an entry goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeName {
    /// As a command line spells it: `tokens`.
    pub name: &'static str,
    /// What is counted, for help: `PIXELS`.
    pub unit: &'static str,
    /// What it decides, with the default where that is no number.
    pub about: &'static str,
    /// Its default where every configuration has the same.
    pub usual: Option<usize>,
    /// What it may be.
    pub smallest: usize,
    /// What it may be.
    pub largest: usize,
    /// Whether it only decides made-up inputs, so that given ones rule it out.
    pub of_inputs: bool,
}

/// The same for one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// As [`SizeName::name`].
    pub name: &'static str,
    /// Its value where none is given.
    pub default: usize,
    /// What it may be.
    pub range: RangeInclusive<usize>,
    /// What it must be a multiple of.
    pub multiple_of: usize,
}

impl SizeName {
    /// With a configuration's default, where the usual one is left to it.
    pub fn with(&self, default: usize, multiple_of: usize) -> Size {
        Size {
            name: self.name,
            default: self.usual.unwrap_or(default),
            range: self.smallest..=self.largest,
            multiple_of,
        }
    }
}

/// Values of sizes by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes(Vec<(&'static str, usize)>);

impl Sizes {
    /// One by name; none where nobody said it.
    pub fn get(&self, name: &str) -> Option<usize> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    }

    /// One by name, or 0.
    pub fn or_zero(&self, name: &str) -> usize {
        self.get(name).unwrap_or(0)
    }

    /// Sets one.
    pub fn set(&mut self, name: &'static str, value: usize) {
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value));
    }

    /// Of the declared sizes those that were given, and the defaults of the others.
    ///
    /// # Errors
    /// A value outside its range, or no multiple of what it has to be.
    pub fn complete(declared: &[Size], given: &Sizes) -> std::result::Result<Sizes, SizeError> {
        let mut sizes = Sizes::default();
        for size in declared {
            let value = given.get(size.name).unwrap_or(size.default);
            let fail = |problem: String| SizeError::new(size.name, value, problem);
            if !size.range.contains(&value) {
                let (low, high) = (size.range.start(), size.range.end());
                return Err(fail(format!("expected {low} to {high}")));
            }
            if !value.is_multiple_of(size.multiple_of.max(1)) {
                let multiple = size.multiple_of;
                return Err(fail(format!(
                    "expected a multiple of {multiple} for this model"
                )));
            }
            sizes.set(size.name, value);
        }
        Ok(sizes)
    }
}

impl FromIterator<(&'static str, usize)> for Sizes {
    fn from_iter<I: IntoIterator<Item = (&'static str, usize)>>(pairs: I) -> Self {
        let mut sizes = Self::default();
        for (name, value) in pairs {
            sizes.set(name, value);
        }
        sizes
    }
}

/// A size that makes no sense for a model or its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeError {
    /// Which.
    pub name: &'static str,
    /// What it is.
    pub value: usize,
    /// What is wrong, and what is expected.
    pub problem: String,
}

impl SizeError {
    /// As the fields say.
    pub fn new(name: &'static str, value: usize, problem: impl Into<String>) -> Self {
        Self {
            name,
            value,
            problem: problem.into(),
        }
    }
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.name, self.value, self.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_sizes_go_before_defaults_and_are_checked() {
        let declared = [
            Size {
                name: "size",
                default: 64,
                range: 1..=512,
                multiple_of: 8,
            },
            Size {
                name: "tokens",
                default: 300,
                range: 1..=1000,
                multiple_of: 1,
            },
        ];
        let complete = |value: usize| {
            let given = [("size", value)].into_iter().collect();
            Sizes::complete(&declared, &given)
        };
        let sizes = complete(72).unwrap();
        assert_eq!(
            (sizes.get("size"), sizes.or_zero("tokens")),
            (Some(72), 300)
        );
        let message = complete(70).unwrap_err().to_string();
        assert_eq!(message, "size 70: expected a multiple of 8 for this model");
        assert!(complete(1024).unwrap_err().to_string().contains("1 to 512"));
    }
}
