//! The methods of Python's lists, tuples and dictionaries that change nothing.

use std::rc::Rc;

use super::arguments::{Arguments, int_or};
use super::budget::Budget;
use super::fault::{Fault, Result};
use super::value::{Dict, Sequence, Value};

/// Of lists and tuples.
pub const LIST_METHODS: [&str; 3] = ["copy", "count", "index"];
/// Of dictionaries.
pub const DICT_METHODS: [&str; 5] = ["copy", "get", "items", "keys", "values"];
/// What would change a list, which templates may not.
pub const LIST_CHANGES: [&str; 8] = [
    "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort",
];
/// What would change a dictionary.
pub const DICT_CHANGES: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];

/// Calls a method of a list or tuple.
pub fn call_list(
    own: &Rc<Sequence>,
    method: &str,
    arguments: Arguments,
    budget: &Budget,
) -> Result<Value> {
    match method {
        "copy" => {
            arguments.none(method)?;
            Ok(Value::List(Rc::clone(own)))
        }
        "count" => {
            let [wanted] = arguments.bind(method, ["value"], 1)?;
            let wanted = wanted.unwrap_or(Value::None);
            let mut count = 0;
            for item in &own.items {
                count += i64::from(item.equals(&wanted, budget)?);
            }
            Ok(Value::Int(count))
        }
        _ => {
            let [wanted, start, end] = arguments.bind(method, ["value", "start", "stop"], 1)?;
            let wanted = wanted.unwrap_or(Value::None);
            let length = own.items.len() as i64;
            let place = |at: i64| {
                if at < 0 {
                    at.saturating_add(length)
                } else {
                    at
                }
            };
            let start = place(int_or(method, start, 0)?);
            let end = place(int_or(method, end, i64::MAX)?);
            for (at, item) in own.items.iter().enumerate() {
                if (start..end).contains(&(at as i64)) && item.equals(&wanted, budget)? {
                    return Ok(Value::Int(at as i64));
                }
            }
            Err(Fault::new("the value is not in the list"))
        }
    }
}

/// Calls a method of a dictionary.
pub fn call_dict(
    own: &Rc<Dict>,
    method: &str,
    arguments: Arguments,
    budget: &Budget,
) -> Result<Value> {
    if method == "get" {
        let [key, default] = arguments.bind(method, ["key", "default"], 1)?;
        let found = own.get(&key.unwrap_or(Value::None), budget)?.cloned();
        return Ok(found.or(default).unwrap_or(Value::None));
    }
    arguments.none(method)?;
    let pairs = own.pairs().iter();
    match method {
        "copy" => Ok(Value::Dict(Rc::clone(own))),
        "keys" => Value::list(pairs.map(|(key, _)| key.clone()).collect(), budget),
        "values" => Value::list(pairs.map(|(_, value)| value.clone()).collect(), budget),
        _ => {
            let pairs =
                pairs.map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()], budget));
            Value::list(pairs.collect::<Result<_>>()?, budget)
        }
    }
}
