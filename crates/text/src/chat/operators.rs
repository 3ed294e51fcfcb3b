//! Python's operators.

use minijinja::machinery::ast::BinOpKind;

use super::budget::Budget;
use super::fault::{Fault, Result};
use super::value::Value;

fn unfit(operator: &str, left: &Value, right: &Value) -> Fault {
    match (left.defined(), right.defined()) {
        (Err(fault), _) | (_, Err(fault)) => fault,
        _ => Fault::new(format!(
            "unsupported operand type(s) for {operator}: '{}' and '{}'",
            left.kind(),
            right.kind()
        )),
    }
}

fn too_large() -> Fault {
    Fault::new("a number is larger than 64 bits")
}

pub fn negative(value: &Value) -> Result<Value> {
    match (value.as_int(), value.as_float()) {
        (Some(whole), _) => whole.checked_neg().map(Value::Int).ok_or_else(too_large),
        (None, Some(float)) => Ok(Value::Float(-float)),
        _ => Err(Fault::new(format!(
            "bad operand type for unary -: '{}'",
            value.defined()?.kind()
        ))),
    }
}

/// `+`: numbers, texts, lists.
pub fn add(left: &Value, right: &Value, budget: &Budget) -> Result<Value> {
    match (left, right) {
        (Value::Str(a), Value::Str(b)) => {
            budget.make(a.len() + b.len())?;
            Ok(Value::Str([&**a, &**b].concat().into()))
        }
        (Value::List(a), Value::List(b)) => {
            budget.elements(a.items.len() + b.items.len())?;
            Value::list([&a.items[..], &b.items[..]].concat(), budget)
        }
        (Value::Tuple(a), Value::Tuple(b)) => {
            budget.elements(a.items.len() + b.items.len())?;
            Value::tuple([&a.items[..], &b.items[..]].concat(), budget)
        }
        _ => match (left.as_int(), right.as_int()) {
            (Some(a), Some(b)) => a.checked_add(b).map(Value::Int).ok_or_else(too_large),
            _ => match (left.as_float(), right.as_float()) {
                (Some(a), Some(b)) => Ok(Value::Float(a + b)),
                _ => Err(unfit("+", left, right)),
            },
        },
    }
}

/// `*`: numbers, or a text or list so many times.
pub fn multiply(left: &Value, right: &Value, budget: &Budget) -> Result<Value> {
    let (whole, many) = match (left, right) {
        (Value::Str(_) | Value::List(_) | Value::Tuple(_), count) => (left, count),
        (count, Value::Str(_) | Value::List(_) | Value::Tuple(_)) => (right, count),
        _ => {
            return match (left.as_int(), right.as_int()) {
                (Some(a), Some(b)) => a.checked_mul(b).map(Value::Int).ok_or_else(too_large),
                _ => match (left.as_float(), right.as_float()) {
                    (Some(a), Some(b)) => Ok(Value::Float(a * b)),
                    _ => Err(unfit("*", left, right)),
                },
            };
        }
    };
    let count = many.as_int().ok_or_else(|| unfit("*", left, right))?;
    let count = usize::try_from(count).unwrap_or(0);
    match whole {
        Value::Str(text) => {
            budget.make_times(text.len(), count)?;
            Ok(Value::Str(text.repeat(count).into()))
        }
        Value::List(sequence) => {
            budget.elements(sequence.items.len().saturating_mul(count))?;
            Value::list(repeated(&sequence.items, count), budget)
        }
        Value::Tuple(sequence) => {
            budget.elements(sequence.items.len().saturating_mul(count))?;
            Value::tuple(repeated(&sequence.items, count), budget)
        }
        _ => Err(unfit("*", left, right)),
    }
}

fn repeated(items: &[Value], count: usize) -> Vec<Value> {
    let all = items.iter().cycle();
    all.take(items.len() * count).cloned().collect()
}

/// `-`, `/`, `//`, `%` and `**` of numbers.
pub fn arithmetic(operator: BinOpKind, left: &Value, right: &Value) -> Result<Value> {
    let sign = match operator {
        BinOpKind::Sub => "-",
        BinOpKind::Div => "/",
        BinOpKind::FloorDiv => "//",
        BinOpKind::Rem => "%",
        _ => "**",
    };
    let (Some(a), Some(b)) = (left.as_float(), right.as_float()) else {
        return Err(unfit(sign, left, right));
    };
    if b == 0.0 && matches!(sign, "/" | "//" | "%") {
        return Err(Fault::new("division by zero"));
    }
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        let whole = match sign {
            "-" => a.checked_sub(b),
            // Towards minus infinity, and the rest has the divisor's sign.
            "//" => a
                .checked_div(b)
                .map(|quotient| quotient - i64::from(a % b != 0 && (a < 0) != (b < 0))),
            "%" => a.checked_rem(b).map(|rest| {
                if rest != 0 && (rest < 0) != (b < 0) {
                    rest + b
                } else {
                    rest
                }
            }),
            "**" if b >= 0 => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            _ => {
                return Ok(Value::Float(if sign == "/" {
                    a as f64 / b as f64
                } else {
                    (a as f64).powf(b as f64)
                }));
            }
        };
        return whole.map(Value::Int).ok_or_else(too_large);
    }
    Ok(Value::Float(match sign {
        "-" => a - b,
        "/" => a / b,
        "//" => (a / b).floor(),
        "%" => a - b * (a / b).floor(),
        _ => a.powf(b),
    }))
}

/// `item in container`.
pub fn contains(container: &Value, item: &Value, budget: &Budget) -> Result<bool> {
    match container {
        Value::Str(text) => {
            budget.read(text.len())?;
            let wanted = item.as_str().ok_or_else(|| {
                Fault::new(format!(
                    "'in <string>' requires string as left operand, not {}",
                    item.kind()
                ))
            })?;
            Ok(text.contains(wanted))
        }
        Value::Dict(pairs) => Ok(pairs.get(item, budget)?.is_some()),
        Value::List(sequence) | Value::Tuple(sequence) => {
            for other in &sequence.items {
                if item.equals(other, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Undefined(_) => Ok(false),
        other => Err(Fault::new(format!(
            "argument of type '{}' is not iterable",
            other.kind()
        ))),
    }
}

/// `value[start:stop:step]`.
pub fn slice(value: &Value, bounds: &[Value; 3], budget: &Budget) -> Result<Value> {
    let bound = |value: &Value| match value {
        Value::None => Ok(None),
        value => value
            .as_int()
            .map(Some)
            .ok_or_else(|| Fault::new("slice indices must be integers or None")),
    };
    let [start, stop, step] = [bound(&bounds[0])?, bound(&bounds[1])?, bound(&bounds[2])?];
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Fault::new("slice step cannot be zero"));
    }
    let places = |length: usize| {
        let length = length as i64;
        let (low, high) = if step > 0 {
            (0, length)
        } else {
            (-1, length - 1)
        };
        let place = |bound: Option<i64>, usual: i64| match bound {
            None => usual,
            Some(at) if at < 0 => at.saturating_add(length).max(low),
            Some(at) => at.min(high),
        };
        let (first, end) = if step > 0 { (low, high) } else { (high, low) };
        let (mut at, end) = (place(start, first), place(stop, end));
        std::iter::from_fn(move || {
            let inside = if step > 0 { at < end } else { at > end };
            let found = inside.then_some(at as usize);
            at = at.saturating_add(step);
            found
        })
    };
    match value {
        Value::Str(text) => {
            // Four bytes a character, while they are counted.
            budget.make_times(text.len(), 4)?;
            let characters: Vec<char> = text.chars().collect();
            let made: String = places(characters.len()).map(|at| characters[at]).collect();
            Ok(Value::Str(made.into()))
        }
        Value::List(sequence) => {
            let items = places(sequence.items.len()).map(|at| sequence.items[at].clone());
            Value::list(items.collect(), budget)
        }
        Value::Tuple(sequence) => {
            let items = places(sequence.items.len()).map(|at| sequence.items[at].clone());
            Value::tuple(items.collect(), budget)
        }
        other => Err(Fault::new(format!(
            "'{}' object is not subscriptable",
            other.defined()?.kind()
        ))),
    }
}
