//! The arguments of a call.

use std::rc::Rc;

use super::fault::{Fault, Result};
use super::value::Value;

/// Values by place, then by name.
#[derive(Default)]
pub struct Arguments {
    pub positional: Vec<Value>,
    pub named: Vec<(Rc<str>, Value)>,
}

impl Arguments {
    /// The values of `names`, of which the first `required` must be there.
    pub fn bind<const N: usize>(
        self,
        what: &str,
        names: [&str; N],
        required: usize,
    ) -> Result<[Option<Value>; N]> {
        let mut bound = [const { None }; N];
        if self.positional.len() > N {
            return Err(Fault::new(format!(
                "{what}() takes at most {N} arguments ({} given)",
                self.positional.len()
            )));
        }
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let place = names.iter().position(|known| **known == *name);
            let Some(place) = place.filter(|place| bound[*place].is_none()) else {
                return Err(Fault::new(format!(
                    "{what}() got an unexpected keyword argument '{name}'"
                )));
            };
            bound[place] = Some(value);
        }
        match (0..required).find(|place| bound[*place].is_none()) {
            Some(place) => Err(Fault::new(format!(
                "{what}() missing the argument '{}'",
                names[place]
            ))),
            None => Ok(bound),
        }
    }

    /// No arguments at all.
    pub fn none(self, what: &str) -> Result<()> {
        self.bind::<0>(what, [], 0).map(|_| ())
    }
}

/// A text that was given.
pub fn text(what: &str, value: Option<Value>) -> Result<Rc<str>> {
    match value {
        Some(Value::Str(text)) => Ok(text),
        Some(other) => Err(Fault::new(format!(
            "{what}() expects a str, not '{}'",
            other.defined()?.kind()
        ))),
        None => Err(Fault::new(format!("{what}() expects a str"))),
    }
}

/// A text, or none where none or `None` was given.
pub fn text_or_none(what: &str, value: Option<Value>) -> Result<Option<Rc<str>>> {
    match value {
        None | Some(Value::None) => Ok(None),
        other => text(what, other).map(Some),
    }
}

/// A whole number, or `default` where none or `None` was given.
pub fn int_or(what: &str, value: Option<Value>, default: i64) -> Result<i64> {
    match value {
        None | Some(Value::None) => Ok(default),
        Some(value) => value
            .as_int()
            .ok_or_else(|| Fault::new(format!("{what}() expects an int, not '{}'", value.kind()))),
    }
}

/// Whether it was given and is true.
pub fn flag_or(value: Option<Value>, default: bool) -> bool {
    value.map_or(default, |value| value.is_true())
}
