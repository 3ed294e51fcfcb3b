//! What a template computes with: Python's values, as far as templates see them.
//!
//! Nothing here can be changed after it is made: the sandbox that templates are written for forbids
//! that, too. Namespaces are the exception, and those live in the [`Evaluator`](super::evaluate).

use std::cmp::Ordering;
use std::rc::Rc;

use super::budget::{Budget, NESTING};
use super::fault::{Fault, Result};

/// A value of a template.
#[derive(Clone)]
pub enum Value {
    /// What was looked for and not found, as a message.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    List(Rc<Sequence>),
    Tuple(Rc<Sequence>),
    Dict(Rc<Dict>),
    /// By its place among the evaluator's namespaces.
    Namespace(usize),
    /// By its place among the evaluator's macros.
    Macro(usize),
    /// By its place among the evaluator's loops.
    Loop(usize),
    /// Something that can be called, by its name.
    Function(Function),
    /// A method of a value, not called yet.
    Method(Rc<(Value, Rc<str>)>),
}

/// The functions that every template has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Range,
    Dict,
    Namespace,
    RaiseException,
    StrftimeNow,
    /// `loop.cycle`, of this loop.
    Cycle(usize),
    /// `loop.changed`, of this loop.
    Changed(usize),
}

/// Values in order, with how deep they nest.
pub struct Sequence {
    pub items: Vec<Value>,
    depth: u32,
}

/// Pairs in the order they were put in.
#[derive(Clone, Default)]
pub struct Dict {
    pairs: Vec<(Value, Value)>,
    depth: u32,
}

fn deeper(depths: impl Iterator<Item = u32>) -> Result<u32> {
    let depth = depths.max().unwrap_or(0) + 1;
    if depth > NESTING {
        return Err(Fault::new(format!(
            "its lists nest deeper than {NESTING} levels"
        )));
    }
    Ok(depth)
}

impl Dict {
    /// Puts a pair in; a key that is there already keeps its place.
    pub fn insert(&mut self, key: Value, value: Value, budget: &Budget) -> Result<()> {
        if matches!(key, Value::List(_) | Value::Dict(_) | Value::Undefined(_)) {
            return Err(Fault::new(format!("unhashable type: '{}'", key.kind())));
        }
        self.depth =
            deeper([self.depth.saturating_sub(1), key.depth(), value.depth()].into_iter())?;
        match self.find(&key, budget)? {
            Some(place) => self.pairs[place].1 = value,
            None => {
                budget.elements(2)?;
                self.pairs.push((key, value));
            }
        }
        Ok(())
    }

    fn find(&self, key: &Value, budget: &Budget) -> Result<Option<usize>> {
        for (place, (other, _)) in self.pairs.iter().enumerate() {
            if key.equals(other, budget)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    pub fn get(&self, key: &Value, budget: &Budget) -> Result<Option<&Value>> {
        Ok(self.find(key, budget)?.map(|place| &self.pairs[place].1))
    }

    pub fn get_str(&self, key: &str, budget: &Budget) -> Result<Option<&Value>> {
        budget.work(self.pairs.len() / 8)?;
        let found = self
            .pairs
            .iter()
            .find(|(other, _)| matches!(other, Value::Str(text) if &**text == key));
        Ok(found.map(|(_, value)| value))
    }

    pub fn pairs(&self) -> &[(Value, Value)] {
        &self.pairs
    }

    pub fn len(&self) -> usize {
        self.pairs.len()
    }
}

impl Value {
    pub fn undefined(name: &str) -> Self {
        Self::Undefined(format!("'{name}' is undefined").into())
    }

    pub fn str(text: &str) -> Self {
        Self::Str(text.into())
    }

    /// A list, paid for.
    pub fn list(items: Vec<Value>, budget: &Budget) -> Result<Self> {
        Ok(Self::List(Self::sequence(items, budget)?))
    }

    /// A tuple, paid for.
    pub fn tuple(items: Vec<Value>, budget: &Budget) -> Result<Self> {
        Ok(Self::Tuple(Self::sequence(items, budget)?))
    }

    fn sequence(items: Vec<Value>, budget: &Budget) -> Result<Rc<Sequence>> {
        budget.elements(items.len() + 1)?;
        let depth = deeper(items.iter().map(Value::depth))?;
        Ok(Rc::new(Sequence { items, depth }))
    }

    /// A text, paid for.
    pub fn text(text: impl Into<String>, budget: &Budget) -> Result<Self> {
        let text = text.into();
        budget.make(text.len())?;
        Ok(Self::Str(text.into()))
    }

    /// A list of texts, paid for.
    pub fn texts<'a>(pieces: impl Iterator<Item = &'a str>, budget: &Budget) -> Result<Self> {
        let mut items = Vec::new();
        for piece in pieces {
            budget.make(piece.len())?;
            budget.elements(1)?;
            items.push(Self::str(piece));
        }
        Self::list(items, budget)
    }

    fn depth(&self) -> u32 {
        match self {
            Self::List(sequence) | Self::Tuple(sequence) => sequence.depth,
            Self::Dict(dict) => dict.depth,
            Self::Method(bound) => bound.0.depth(),
            _ => 0,
        }
    }

    /// Python's name of its type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Namespace(_) => "Namespace",
            Self::Macro(_) => "Macro",
            Self::Loop(_) => "LoopContext",
            Self::Function(_) | Self::Method(_) => "function",
        }
    }

    /// Whether an `if` takes it.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(sequence) | Self::Tuple(sequence) => !sequence.items.is_empty(),
            Self::Dict(dict) => dict.len() > 0,
            _ => true,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number; Python counts truth values among them.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            other => other.as_int().map(|value| value as f64),
        }
    }

    /// The message of an undefined value as a fault.
    pub fn defined(&self) -> Result<&Self> {
        match self {
            Self::Undefined(message) => Err(Fault::new(&**message)),
            other => Ok(other),
        }
    }

    /// `==`.
    pub fn equals(&self, other: &Self, budget: &Budget) -> Result<bool> {
        budget.work(1)?;
        Ok(match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Str(a), Self::Str(b)) => {
                budget.read(a.len().min(b.len()))?;
                a == b
            }
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                if a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Dict(a), Self::Dict(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (key, value) in a.pairs() {
                    match b.get(key, budget)? {
                        Some(found) if value.equals(found, budget)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Self::Namespace(a), Self::Namespace(b))
            | (Self::Macro(a), Self::Macro(b))
            | (Self::Loop(a), Self::Loop(b)) => a == b,
            (Self::Function(a), Self::Function(b)) => a == b,
            _ => match (self.as_int(), other.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => matches!((self.as_float(), other.as_float()), (Some(a), Some(b)) if a == b),
            },
        })
    }

    /// The order of `<` and of sorting.
    pub fn compare(&self, other: &Self, budget: &Budget) -> Result<Ordering> {
        budget.work(1)?;
        self.defined()?;
        other.defined()?;
        match (self, other) {
            (Self::Str(a), Self::Str(b)) => {
                budget.read(a.len().min(b.len()))?;
                Ok(a.cmp(b))
            }
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, budget)? {
                        return a.compare(b, budget);
                    }
                }
                Ok(a.items.len().cmp(&b.items.len()))
            }
            _ => {
                let ordering = match (self.as_int(), other.as_int()) {
                    (Some(a), Some(b)) => Some(a.cmp(&b)),
                    _ => match (self.as_float(), other.as_float()) {
                        (Some(a), Some(b)) => Some(a.partial_cmp(&b).unwrap_or(Ordering::Equal)),
                        _ => None,
                    },
                };
                ordering.ok_or_else(|| {
                    Fault::new(format!(
                        "'{}' and '{}' have no order",
                        self.kind(),
                        other.kind()
                    ))
                })
            }
        }
    }

    /// What `for` goes through: elements, keys, or characters.
    pub fn elements(&self, budget: &Budget) -> Result<Vec<Value>> {
        match self {
            Self::Undefined(_) => Ok(Vec::new()),
            Self::List(sequence) | Self::Tuple(sequence) => {
                budget.elements(sequence.items.len())?;
                Ok(sequence.items.clone())
            }
            Self::Dict(dict) => {
                budget.elements(dict.len())?;
                Ok(dict.pairs().iter().map(|(key, _)| key.clone()).collect())
            }
            Self::Str(text) => {
                budget.elements(text.len())?;
                let mut buffer = [0; 4];
                let characters = text.chars();
                Ok(characters
                    .map(|c| Self::str(c.encode_utf8(&mut buffer)))
                    .collect())
            }
            other => Err(Fault::new(format!(
                "'{}' object is not iterable",
                other.kind()
            ))),
        }
    }

    /// How many elements or characters.
    pub fn length(&self, budget: &Budget) -> Result<usize> {
        match self {
            Self::Undefined(_) => Ok(0),
            Self::Str(text) => {
                budget.read(text.len())?;
                Ok(text.chars().count())
            }
            Self::List(sequence) | Self::Tuple(sequence) => Ok(sequence.items.len()),
            Self::Dict(dict) => Ok(dict.len()),
            other => Err(Fault::new(format!(
                "object of type '{}' has no len()",
                other.kind()
            ))),
        }
    }

    /// The text that `{{ }}` prints: Python's `str()`.
    pub fn to_text(&self, budget: &Budget) -> Result<Rc<str>> {
        match self {
            Self::Str(text) => Ok(Rc::clone(text)),
            Self::Undefined(_) => Ok("".into()),
            other => {
                let mut text = String::new();
                other.write_repr(&mut text, budget)?;
                Ok(text.into())
            }
        }
    }

    /// Appends Python's `repr()`.
    pub fn write_repr(&self, out: &mut String, budget: &Budget) -> Result<()> {
        let start = out.len();
        match self {
            Self::Undefined(_) => out.push_str("Undefined"),
            Self::None => out.push_str("None"),
            Self::Bool(true) => out.push_str("True"),
            Self::Bool(false) => out.push_str("False"),
            Self::Int(value) => out.push_str(&value.to_string()),
            Self::Float(value) => out.push_str(&float_repr(*value)),
            Self::Str(text) => {
                budget.make(text.len())?;
                quote(text, out);
            }
            Self::List(sequence) => {
                out.push('[');
                write_joined(&sequence.items, out, budget)?;
                out.push(']');
            }
            Self::Tuple(sequence) => {
                out.push('(');
                write_joined(&sequence.items, out, budget)?;
                out.push_str(if sequence.items.len() == 1 { ",)" } else { ")" });
            }
            Self::Dict(dict) => {
                out.push('{');
                for (place, (key, value)) in dict.pairs().iter().enumerate() {
                    if place > 0 {
                        out.push_str(", ");
                    }
                    key.write_repr(out, budget)?;
                    out.push_str(": ");
                    value.write_repr(out, budget)?;
                }
                out.push('}');
            }
            other => {
                out.push('<');
                out.push_str(other.kind());
                out.push('>');
            }
        }
        // Elements have paid for themselves; what is around them is a few bytes each.
        match self {
            Self::Str(_) | Self::List(_) | Self::Tuple(_) | Self::Dict(_) => budget.make(4),
            _ => budget.make(out.len() - start),
        }
    }
}

/// A stable sort whose comparison may fail.
pub fn sorted<T>(items: Vec<T>, compare: &dyn Fn(&T, &T) -> Result<Ordering>) -> Result<Vec<T>> {
    if items.len() < 2 {
        return Ok(items);
    }
    let mut left = items;
    let right = left.split_off(left.len() / 2);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let mut left = sorted(left, compare)?.into_iter().peekable();
    let mut right = sorted(right, compare)?.into_iter().peekable();
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let first = if compare(b, a)?.is_lt() {
            &mut right
        } else {
            &mut left
        };
        merged.extend(first.next());
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}

fn write_joined(items: &[Value], out: &mut String, budget: &Budget) -> Result<()> {
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push_str(", ");
        }
        item.write_repr(out, budget)?;
    }
    Ok(())
}

/// A text as Python quotes it.
fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == mark => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || (0x7f..0xa1).contains(&(c as u32)) || c == '\u{ad}' => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if unprintable(c) && (c as u32) < 0x1_0000 => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c if unprintable(c) => out.push_str(&format!("\\U{:08x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(mark);
}

/// Separators, marks of direction, private characters: what Python's `isprintable` denies.
fn unprintable(c: char) -> bool {
    matches!(c as u32,
        0x1680 | 0x180e | 0x2000..=0x200f | 0x2028..=0x202f | 0x205f..=0x206f | 0x3000 | 0xe000..=0xf8ff
        | 0xfeff | 0xfff9..=0xfffb | 0xfffe..=0xffff | 0xe0001..=0xe007f | 0xf_0000..=0x10_ffff)
}

/// A float as Python prints it: the shortest digits that read back, with an exponent where that is
/// below -4 or above 15.
pub fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let shortest = format!("{value:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = value.to_string();
    if plain.contains('.') {
        plain
    } else {
        format!("{plain}.0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_as_in_python() {
        for (value, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (123456789012345.0, "123456789012345.0"),
            (1.5e-7, "1.5e-07"),
            (0.0001, "0.0001"),
            (-0.0, "-0.0"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(float_repr(value), text);
        }
    }

    #[test]
    fn texts_are_quoted_as_in_python() {
        let quoted = |text: &str| {
            let mut out = String::new();
            quote(text, &mut out);
            out
        };
        assert_eq!(quoted("it's"), "\"it's\"");
        assert_eq!(quoted("a'\"\n\u{1b}é"), "'a\\'\"\\n\\x1bé'");
    }

    #[test]
    fn shared_values_cannot_hide_their_size() {
        let budget = Budget::new();
        let mut value = Value::list(vec![Value::Int(1)], &budget).unwrap();
        for _ in 0..60 {
            value = Value::list(vec![value.clone(), value], &budget).unwrap();
        }
        let other = value.clone();
        assert!(value.equals(&other, &budget).is_err());
        assert!(value.to_text(&Budget::new()).is_err());
        for _ in 0..60 {
            match Value::list(vec![value.clone()], &Budget::new()) {
                Ok(deeper) => value = deeper,
                Err(fault) => return assert!(fault.message.contains("100 levels")),
            }
        }
        panic!("no bound on nesting");
    }
}
