//! Jinja's filters; those over lists are in [`super::list_filters`].

use std::rc::Rc;

use super::arguments::{Arguments, flag_or, int_or, text, text_or_none};
use super::budget::Budget;
use super::evaluate::Evaluator;
use super::fault::{Fault, Result};
use super::json::{self, JsonOptions};
use super::value::Value;
use super::{format, list_filters, strings};

/// What the filter of this name makes of `value`.
pub fn apply(
    evaluator: &mut Evaluator<'_>,
    name: &str,
    value: Value,
    arguments: Arguments,
) -> Result<Value> {
    let budget = evaluator.budget;
    budget.work(1)?;
    match name {
        "default" | "d" => {
            let [default, falsy] = arguments.bind(name, ["default_value", "boolean"], 0)?;
            let absent =
                matches!(value, Value::Undefined(_)) || (flag_or(falsy, false) && !value.is_true());
            Ok(if absent {
                default.unwrap_or_else(|| Value::str(""))
            } else {
                value
            })
        }
        "tojson" => tojson(&value, arguments, budget),
        "string" => {
            arguments.none(name)?;
            Ok(Value::Str(value.to_text(budget)?))
        }
        "safe" | "escape" | "e" | "forceescape" | "urlencode" | "lower" | "upper"
        | "capitalize" | "title" | "trim" | "indent" | "replace" | "center" | "wordcount"
        | "truncate" | "striptags" => {
            let own = value.to_text(budget)?;
            on_text(name, &own, arguments, budget)
        }
        "format" => {
            let layout = value.to_text(budget)?;
            let mut named = super::value::Dict::default();
            for (key, value) in arguments.named {
                named.insert(Value::Str(key), value, budget)?;
            }
            let values = if arguments.positional.is_empty() && named.len() > 0 {
                Value::Dict(Rc::new(named))
            } else {
                Value::tuple(arguments.positional, budget)?
            };
            format::percent(&layout, &values, budget)
        }
        "abs" => {
            arguments.none(name)?;
            match (value.as_int(), value.as_float()) {
                (Some(whole), _) => whole
                    .checked_abs()
                    .map(Value::Int)
                    .ok_or_else(|| Fault::new("a number is larger than 64 bits")),
                (None, Some(float)) => Ok(Value::Float(float.abs())),
                _ => Err(Fault::new(format!(
                    "bad operand type for abs(): '{}'",
                    value.defined()?.kind()
                ))),
            }
        }
        "int" => {
            let [default, base] = arguments.bind(name, ["default", "base"], 0)?;
            let base = int_or(name, base, 10)?;
            Ok(whole_number(&value, base)
                .map_or_else(|| default.unwrap_or(Value::Int(0)), Value::Int))
        }
        "float" => {
            let [default] = arguments.bind(name, ["default"], 0)?;
            let found = match &value {
                Value::Str(text) => text.trim().replace('_', "").parse().ok(),
                other => other.as_float(),
            };
            Ok(found.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
        }
        "round" => {
            let [precision, method] = arguments.bind(name, ["precision", "method"], 0)?;
            let precision = int_or(name, precision, 0)?.clamp(-300, 300) as i32;
            let method = text_or_none(name, method)?;
            let number = value
                .as_float()
                .ok_or_else(|| Fault::new(format!("cannot round a '{}'", value.kind())))?;
            round(number, precision, method.as_deref().unwrap_or("common"))
        }
        "attr" => {
            let [field] = arguments.bind(name, ["name"], 1)?;
            let field = text(name, field)?;
            match value {
                // A dictionary's items are no attributes.
                Value::Dict(_) if !super::containers::DICT_METHODS.contains(&&*field) => Ok(
                    Value::Undefined(format!("'dict object' has no attribute '{field}'").into()),
                ),
                value => evaluator.attribute(&value, &field),
            }
        }
        _ => list_filters::apply(evaluator, name, value, arguments),
    }
}

fn on_text(name: &str, own: &Rc<str>, arguments: Arguments, budget: &Budget) -> Result<Value> {
    budget.read(own.len())?;
    match name {
        "safe" => {
            arguments.none(name)?;
            Ok(Value::Str(Rc::clone(own)))
        }
        "escape" | "e" | "forceescape" => {
            arguments.none(name)?;
            budget.make_times(own.len(), 5)?;
            let mut made = String::new();
            for c in own.chars() {
                match c {
                    '&' => made.push_str("&amp;"),
                    '<' => made.push_str("&lt;"),
                    '>' => made.push_str("&gt;"),
                    '"' => made.push_str("&#34;"),
                    '\'' => made.push_str("&#39;"),
                    c => made.push(c),
                }
            }
            Ok(Value::Str(made.into()))
        }
        "urlencode" => {
            arguments.none(name)?;
            budget.make_times(own.len(), 3)?;
            let mut made = String::new();
            for byte in own.bytes() {
                if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
                    made.push(byte as char);
                } else {
                    made.push_str(&format!("%{byte:02X}"));
                }
            }
            Ok(Value::Str(made.into()))
        }
        "title" => {
            arguments.none(name)?;
            // Words begin after a space, a dash or an opening bracket, as in Jinja's own filter.
            budget.make_times(own.len(), 3)?;
            let mut made = String::new();
            let mut begins = true;
            for c in own.chars() {
                if begins {
                    made.extend(c.to_uppercase());
                } else {
                    made.extend(c.to_lowercase());
                }
                begins = strings::is_space(c) || "-({[<".contains(c);
            }
            Ok(Value::Str(made.into()))
        }
        "trim" => strings::call(own, "strip", arguments, budget),
        "replace" => {
            let [old, new, count] = arguments.bind(name, ["old", "new", "count"], 2)?;
            let as_text = |value: Option<Value>| value.unwrap_or(Value::None).to_text(budget);
            let (old, new) = (as_text(old)?, as_text(new)?);
            let count = usize::try_from(int_or(name, count, -1)?).unwrap_or(usize::MAX);
            strings::replace(own, &old, &new, count, budget)
        }
        "center" => {
            let [width] = arguments.bind(name, ["width"], 0)?;
            strings::padded(own, int_or(name, width, 80)?, ' ', "center", budget)
        }
        "indent" => indent(own, arguments, budget),
        "wordcount" => {
            arguments.none(name)?;
            let words = own.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            Ok(Value::Int(
                words.filter(|word| !word.is_empty()).count() as i64
            ))
        }
        "striptags" => {
            arguments.none(name)?;
            let mut made = String::new();
            let mut rest = &**own;
            while let Some((before, after)) = rest.split_once('<') {
                made.push_str(before);
                rest = after.split_once('>').map_or("", |(_, after)| after);
            }
            made.push_str(rest);
            let words: Vec<&str> = made.split_whitespace().collect();
            Value::text(words.join(" "), budget)
        }
        "truncate" => {
            let [length, kill, end, leeway] =
                arguments.bind(name, ["length", "killwords", "end", "leeway"], 0)?;
            let end = text_or_none(name, end)?.unwrap_or_else(|| "...".into());
            let length = usize::try_from(int_or(name, length, 255)?).unwrap_or(0);
            let leeway = usize::try_from(int_or(name, leeway, 5)?).unwrap_or(0);
            if own.chars().count() <= length.saturating_add(leeway) {
                return Ok(Value::Str(Rc::clone(own)));
            }
            let room = length.checked_sub(end.chars().count()).ok_or_else(|| {
                Fault::new("truncate: its length is shorter than what it ends with")
            })?;
            let mut kept: String = own.chars().take(room).collect();
            if !flag_or(kill, false)
                && let Some(at) = kept.rfind(' ')
            {
                kept.truncate(at);
            }
            Value::text(kept + &end, budget)
        }
        method => strings::call(own, method, arguments, budget),
    }
}

fn indent(own: &Rc<str>, arguments: Arguments, budget: &Budget) -> Result<Value> {
    let [width, first, blank] = arguments.bind("indent", ["width", "first", "blank"], 0)?;
    let (first, blank) = (flag_or(first, false), flag_or(blank, false));
    let by = match width {
        Some(Value::Str(text)) => text,
        width => {
            let width = usize::try_from(int_or("indent", width, 4)?).unwrap_or(0);
            budget.make(width)?;
            " ".repeat(width).into()
        }
    };
    // A line break at the end is a line of its own, as in Jinja's filter.
    let text = format!("{own}\n");
    let mut made = String::new();
    for (place, line) in strings::lines(&text, false).enumerate() {
        if place > 0 {
            made.push('\n');
        }
        let wanted = if place == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        budget.make(line.len() + 1)?;
        if wanted {
            budget.make(by.len())?;
            made.push_str(&by);
        }
        made.push_str(line);
    }
    Ok(Value::Str(made.into()))
}

fn tojson(value: &Value, arguments: Arguments, budget: &Budget) -> Result<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sort] = arguments.bind("tojson", names, 0)?;
    let indent: Option<Rc<str>> = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text),
        width => {
            let width = usize::try_from(int_or("tojson", width, 0)?).unwrap_or(0);
            budget.make(width)?;
            Some(" ".repeat(width).into())
        }
    };
    let (item, key) = match separators {
        None | Some(Value::None) => {
            let item = if indent.is_some() { "," } else { ", " };
            (item.into(), ": ".into())
        }
        Some(pair) => match &pair.elements(budget)?[..] {
            [Value::Str(item), Value::Str(key)] => (Rc::clone(item), Rc::clone(key)),
            _ => return Err(Fault::new("tojson: separators are a pair of texts")),
        },
    };
    let options = JsonOptions {
        ensure_ascii: flag_or(ascii, false),
        indent,
        item_separator: item,
        key_separator: key,
        sort_keys: flag_or(sort, false),
    };
    Ok(Value::Str(json::dump(value, &options, budget)?.into()))
}

/// What `int` reads, where it reads anything.
fn whole_number(value: &Value, base: i64) -> Option<i64> {
    let from_float =
        |float: f64| (float.is_finite() && float.abs() < 9.2e18).then_some(float as i64);
    match value {
        Value::Str(text) => {
            let text = text.trim().replace('_', "");
            let digits = match base {
                16 => text.trim_start_matches("0x").trim_start_matches("0X"),
                8 => text.trim_start_matches("0o"),
                2 => text.trim_start_matches("0b"),
                _ => &text,
            };
            let radix = u32::try_from(base)
                .ok()
                .filter(|radix| (2..=36).contains(radix))?;
            let read = i64::from_str_radix(digits, radix).ok();
            read.or_else(|| from_float(text.parse().ok()?))
        }
        Value::Float(float) => from_float(*float),
        other => other.as_int(),
    }
}

fn round(number: f64, precision: i32, method: &str) -> Result<Value> {
    let scale = 10f64.powi(precision);
    let rounded = match method {
        // Halves go to the even neighbour, as Python's round() does.
        "common" if (0..=17).contains(&precision) => {
            let digits = precision as usize;
            if (number * scale).fract().abs() == 0.5 {
                (number * scale).round_ties_even() / scale
            } else {
                format!("{number:.digits$}").parse().unwrap_or(number)
            }
        }
        "common" => (number * scale).round_ties_even() / scale,
        "ceil" => (number * scale).ceil() / scale,
        "floor" => (number * scale).floor() / scale,
        other => return Err(Fault::new(format!("round: unknown method '{other}'"))),
    };
    Ok(Value::Float(rounded))
}
