//! The `tojson` of chat templates: Python's `json.dumps`, which escapes nothing for HTML.

use std::rc::Rc;

use super::budget::Budget;
use super::fault::{Fault, Result};
use super::value::{Value, float_repr, sorted};

/// The arguments of `json.dumps`.
pub struct JsonOptions {
    pub ensure_ascii: bool,
    pub indent: Option<Rc<str>>,
    pub item_separator: Rc<str>,
    pub key_separator: Rc<str>,
    pub sort_keys: bool,
}

/// The value as JSON.
pub fn dump(value: &Value, options: &JsonOptions, budget: &Budget) -> Result<String> {
    let mut out = String::new();
    write(value, options, 0, &mut out, budget)?;
    Ok(out)
}

fn write(
    value: &Value,
    options: &JsonOptions,
    level: usize,
    out: &mut String,
    budget: &Budget,
) -> Result<()> {
    budget.make(4)?;
    match value {
        Value::Str(text) => write_text(text, options, out, budget),
        Value::List(sequence) | Value::Tuple(sequence) => {
            if sequence.items.is_empty() {
                out.push_str("[]");
                return Ok(());
            }
            out.push('[');
            for (place, item) in sequence.items.iter().enumerate() {
                separate(place, options, level + 1, out, budget)?;
                write(item, options, level + 1, out, budget)?;
            }
            break_line(options, level, out, budget)?;
            out.push(']');
            Ok(())
        }
        Value::Dict(dict) => {
            if dict.len() == 0 {
                out.push_str("{}");
                return Ok(());
            }
            let mut pairs: Vec<&(Value, Value)> = dict.pairs().iter().collect();
            if options.sort_keys {
                pairs = sorted(pairs, &|(a, _), (b, _)| a.compare(b, budget))?;
            }
            out.push('{');
            for (place, (key, item)) in pairs.into_iter().enumerate() {
                separate(place, options, level + 1, out, budget)?;
                match key {
                    Value::Str(key) => write_text(key, options, out, budget)?,
                    Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                        out.push('"');
                        write(key, options, level, out, budget)?;
                        out.push('"');
                    }
                    other => {
                        return Err(Fault::new(format!(
                            "tojson: keys must be str, int, float, bool or None, not {}",
                            other.kind()
                        )));
                    }
                }
                budget.make(options.key_separator.len())?;
                out.push_str(&options.key_separator);
                write(item, options, level + 1, out, budget)?;
            }
            break_line(options, level, out, budget)?;
            out.push('}');
            Ok(())
        }
        Value::None => push(out, "null"),
        Value::Bool(true) => push(out, "true"),
        Value::Bool(false) => push(out, "false"),
        Value::Int(value) => push(out, &value.to_string()),
        Value::Float(value) => push(
            out,
            match *value {
                value if value.is_nan() => "NaN".to_owned(),
                f64::INFINITY => "Infinity".to_owned(),
                f64::NEG_INFINITY => "-Infinity".to_owned(),
                value => float_repr(value),
            }
            .as_str(),
        ),
        other => Err(Fault::new(format!(
            "Object of type {} is not JSON serializable",
            other.kind()
        ))),
    }
}

fn push(out: &mut String, text: &str) -> Result<()> {
    out.push_str(text);
    Ok(())
}

/// What stands in front of an element.
fn separate(
    place: usize,
    options: &JsonOptions,
    level: usize,
    out: &mut String,
    budget: &Budget,
) -> Result<()> {
    if place > 0 {
        budget.make(options.item_separator.len())?;
        out.push_str(&options.item_separator);
    }
    break_line(options, level, out, budget)
}

fn break_line(
    options: &JsonOptions,
    level: usize,
    out: &mut String,
    budget: &Budget,
) -> Result<()> {
    if let Some(indent) = &options.indent {
        budget.make_times(indent.len(), level)?;
        budget.make(1)?;
        out.push('\n');
        out.extend(std::iter::repeat_n(&**indent, level));
    }
    Ok(())
}

fn write_text(text: &str, options: &JsonOptions, out: &mut String, budget: &Budget) -> Result<()> {
    // A character takes six bytes where it is escaped.
    budget.make_times(text.len(), if options.ensure_ascii { 6 } else { 1 })?;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (options.ensure_ascii && !c.is_ascii()) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(())
}
