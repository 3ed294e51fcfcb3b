//! What `is` asks.

use super::arguments::Arguments;
use super::evaluate::Evaluator;
use super::fault::{Fault, Result};
use super::operators;
use super::value::Value;

/// Whether the test of this name holds for `value`.
pub fn holds(
    evaluator: &Evaluator<'_>,
    name: &str,
    value: &Value,
    arguments: Arguments,
) -> Result<bool> {
    let budget = evaluator.budget;
    let comparison = matches!(
        name,
        "eq" | "=="
            | "equalto"
            | "ne"
            | "!="
            | "lt"
            | "<"
            | "lessthan"
            | "le"
            | "<="
            | "gt"
            | ">"
            | "greaterthan"
            | "ge"
            | ">="
            | "in"
            | "divisibleby"
            | "sameas"
    );
    if comparison {
        let [other] = arguments.bind(name, ["other"], 1)?;
        let other = other.unwrap_or(Value::None);
        return Ok(match name {
            "eq" | "==" | "equalto" => value.equals(&other, budget)?,
            "ne" | "!=" => !value.equals(&other, budget)?,
            "lt" | "<" | "lessthan" => value.compare(&other, budget)?.is_lt(),
            "le" | "<=" => value.compare(&other, budget)?.is_le(),
            "gt" | ">" | "greaterthan" => value.compare(&other, budget)?.is_gt(),
            "ge" | ">=" => value.compare(&other, budget)?.is_ge(),
            "in" => operators::contains(&other, value, budget)?,
            "sameas" => value.kind() == other.kind() && value.equals(&other, budget)?,
            _ => match (value.as_int(), other.as_int()) {
                (Some(value), Some(other)) if other != 0 => value.checked_rem(other) == Some(0),
                _ => return Err(Fault::new("divisibleby expects whole numbers, and not 0")),
            },
        });
    }
    let whole = || {
        value
            .as_int()
            .ok_or_else(|| Fault::new(format!("a number is needed, not '{}'", value.kind())))
    };
    arguments.none(name)?;
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => value.as_float().is_some(),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" | "iterable" => matches!(
            value,
            Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_) | Value::Undefined(_)
        ),
        "callable" => matches!(
            value,
            Value::Macro(_) | Value::Function(_) | Value::Method(_)
        ),
        "odd" => whole()? % 2 != 0,
        "even" => whole()? % 2 == 0,
        "lower" => {
            let text = value.to_text(budget)?;
            text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
        }
        "upper" => {
            let text = value.to_text(budget)?;
            text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
        }
        "escaped" => false,
        other => return Err(Fault::new(format!("unknown test '{other}'"))),
    })
}
