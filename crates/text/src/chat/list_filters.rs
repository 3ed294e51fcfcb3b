//! Jinja's filters over lists.

use std::rc::Rc;

use super::arguments::{Arguments, flag_or, int_or, text, text_or_none};
use super::budget::Budget;
use super::evaluate::Evaluator;
use super::fault::{Fault, Result};
use super::value::{Value, sorted};
use super::{filters, operators, predicates};

/// What the filter of this name makes of `value`.
pub fn apply(
    evaluator: &mut Evaluator<'_>,
    name: &str,
    value: Value,
    arguments: Arguments,
) -> Result<Value> {
    let budget = evaluator.budget;
    match name {
        "length" | "count" => {
            arguments.none(name)?;
            Ok(Value::Int(value.length(budget)? as i64))
        }
        "list" => {
            arguments.none(name)?;
            Value::list(value.elements(budget)?, budget)
        }
        "first" | "last" => {
            arguments.none(name)?;
            let items = value.elements(budget)?;
            let found = if name == "first" {
                items.first()
            } else {
                items.last()
            };
            let none = || Value::Undefined(format!("No {name} item, sequence was empty.").into());
            Ok(found.cloned().unwrap_or_else(none))
        }
        "reverse" => {
            arguments.none(name)?;
            if let Value::Str(text) = &value {
                return Value::text(text.chars().rev().collect::<String>(), budget);
            }
            let mut items = value.elements(budget)?;
            items.reverse();
            Value::list(items, budget)
        }
        "items" => {
            arguments.none(name)?;
            match &value {
                Value::Undefined(_) => Value::list(Vec::new(), budget),
                Value::Dict(own) => {
                    super::containers::call_dict(own, "items", Arguments::default(), budget)
                }
                _ => Err(Fault::new("Can only get item pairs from a mapping.")),
            }
        }
        "join" => {
            let [mark, attribute] = arguments.bind(name, ["d", "attribute"], 0)?;
            let mark = mark.map_or_else(|| Ok("".into()), |mark| mark.to_text(budget))?;
            let items = fields(evaluator, &value, attribute)?;
            let mut joined = String::new();
            for (place, item) in items.iter().enumerate() {
                let piece = item.to_text(budget)?;
                let mark = if place > 0 { &*mark } else { "" };
                budget.make(mark.len() + piece.len())?;
                joined.push_str(mark);
                joined.push_str(&piece);
            }
            Ok(Value::Str(joined.into()))
        }
        "sum" => {
            let [attribute, start] = arguments.bind(name, ["attribute", "start"], 0)?;
            let mut sum = start.unwrap_or(Value::Int(0));
            for item in fields(evaluator, &value, attribute)? {
                sum = operators::add(&sum, &item, budget)?;
            }
            Ok(sum)
        }
        "min" | "max" | "sort" | "unique" => ordered(evaluator, name, &value, arguments),
        "dictsort" => dictsort(&value, arguments, budget),
        "groupby" => groupby(evaluator, &value, arguments),
        "batch" | "slice" => parts(name, &value, arguments, budget),
        "map" => map(evaluator, &value, arguments),
        "select" | "reject" | "selectattr" | "rejectattr" => {
            select(evaluator, name, &value, arguments)
        }
        other => Err(Fault::new(format!("unknown filter '{other}'"))),
    }
}

/// `a.b.0` of a value.
fn field(evaluator: &Evaluator<'_>, value: &Value, path: &Value) -> Result<Value> {
    let Value::Str(path) = path else {
        return evaluator.item(value, path);
    };
    let mut found = value.clone();
    for name in path.split('.') {
        let key = name.parse().map_or_else(|_| Value::str(name), Value::Int);
        found = evaluator.item(&found, &key)?;
    }
    Ok(found)
}

/// The elements of a value, or that field of each.
fn fields(evaluator: &Evaluator<'_>, value: &Value, path: Option<Value>) -> Result<Vec<Value>> {
    let items = value.elements(evaluator.budget)?;
    match path {
        None | Some(Value::None) => Ok(items),
        Some(path) => items
            .iter()
            .map(|item| field(evaluator, item, &path))
            .collect(),
    }
}

/// What a value is sorted by: texts without regard to case unless that is wanted.
fn sort_key(value: Value, case_sensitive: bool, budget: &Budget) -> Result<Value> {
    match &value {
        Value::Str(text) if !case_sensitive => Value::text(text.to_lowercase(), budget),
        _ => Ok(value),
    }
}

fn ordered(
    evaluator: &Evaluator<'_>,
    name: &str,
    value: &Value,
    arguments: Arguments,
) -> Result<Value> {
    let budget = evaluator.budget;
    let (reverse, case_sensitive, attribute) = if name == "sort" {
        let [reverse, case, attribute] =
            arguments.bind(name, ["reverse", "case_sensitive", "attribute"], 0)?;
        (flag_or(reverse, false), case, attribute)
    } else {
        let [case, attribute] = arguments.bind(name, ["case_sensitive", "attribute"], 0)?;
        (false, case, attribute)
    };
    let case_sensitive = flag_or(case_sensitive, false);
    let keys = fields(evaluator, value, attribute)?;
    let keys = keys
        .into_iter()
        .map(|key| sort_key(key, case_sensitive, budget));
    let mut pairs: Vec<(Value, Value)> = keys
        .zip(value.elements(budget)?)
        .map(|(key, item)| Ok((key?, item)))
        .collect::<Result<_>>()?;
    if name == "unique" {
        let mut kept: Vec<(Value, Value)> = Vec::new();
        'items: for (key, item) in pairs {
            for (other, _) in &kept {
                if key.equals(other, budget)? {
                    continue 'items;
                }
            }
            kept.push((key, item));
        }
        return Value::list(kept.into_iter().map(|(_, item)| item).collect(), budget);
    }
    if name != "sort" {
        let mut best: Option<(Value, Value)> = None;
        for (key, item) in pairs {
            let better = match &best {
                None => true,
                Some((found, _)) if name == "min" => key.compare(found, budget)?.is_lt(),
                Some((found, _)) => key.compare(found, budget)?.is_gt(),
            };
            if better {
                best = Some((key, item));
            }
        }
        let none = || Value::Undefined("No aggregated item, sequence was empty.".into());
        return Ok(best.map_or_else(none, |(_, item)| item));
    }
    // Equal ones keep their order in both directions.
    if reverse {
        pairs = sorted(pairs, &|(a, _), (b, _)| b.compare(a, budget))?;
    } else {
        pairs = sorted(pairs, &|(a, _), (b, _)| a.compare(b, budget))?;
    }
    Value::list(pairs.into_iter().map(|(_, item)| item).collect(), budget)
}

fn dictsort(value: &Value, arguments: Arguments, budget: &Budget) -> Result<Value> {
    let names = ["case_sensitive", "by", "reverse"];
    let [case, by, reverse] = arguments.bind("dictsort", names, 0)?;
    let by = text_or_none("dictsort", by)?.unwrap_or_else(|| "key".into());
    let Value::Dict(own) = value else {
        return Err(Fault::new(format!(
            "dictsort of '{}'",
            value.defined()?.kind()
        )));
    };
    if !matches!(&*by, "key" | "value") {
        return Err(Fault::new("dictsort: by is 'key' or 'value'"));
    }
    let case = flag_or(case, false);
    let mut pairs = Vec::new();
    for (key, value) in own.pairs() {
        let by = if &*by == "key" { key } else { value };
        let pair = Value::tuple(vec![key.clone(), value.clone()], budget)?;
        pairs.push((sort_key(by.clone(), case, budget)?, pair));
    }
    let mut pairs = sorted(pairs, &|(a, _), (b, _)| a.compare(b, budget))?;
    if flag_or(reverse, false) {
        pairs.reverse();
    }
    Value::list(pairs.into_iter().map(|(_, pair)| pair).collect(), budget)
}

fn groupby(evaluator: &Evaluator<'_>, value: &Value, arguments: Arguments) -> Result<Value> {
    let budget = evaluator.budget;
    let names = ["attribute", "default", "case_sensitive"];
    let [attribute, default, case] = arguments.bind("groupby", names, 1)?;
    let case = flag_or(case, false);
    let mut keyed = Vec::new();
    for (key, item) in fields(evaluator, value, attribute)?
        .into_iter()
        .zip(value.elements(budget)?)
    {
        let key = match (key, &default) {
            (Value::Undefined(_), Some(default)) => default.clone(),
            (key, _) => key,
        };
        keyed.push((sort_key(key.clone(), case, budget)?, key, item));
    }
    let keyed = sorted(keyed, &|(a, ..), (b, ..)| a.compare(b, budget))?;
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (order, key, item) in keyed {
        match groups.last_mut() {
            Some((last, _, items)) if last.equals(&order, budget)? => items.push(item),
            _ => groups.push((order, key, vec![item])),
        }
    }
    let groups = groups
        .into_iter()
        .map(|(_, key, items)| Value::tuple(vec![key, Value::list(items, budget)?], budget));
    Value::list(groups.collect::<Result<_>>()?, budget)
}

/// `batch`: parts of so many elements; `slice`: so many parts.
fn parts(name: &str, value: &Value, arguments: Arguments, budget: &Budget) -> Result<Value> {
    let [count, fill] = arguments.bind(name, ["count", "fill_with"], 1)?;
    let count = usize::try_from(int_or(name, count, 0)?).unwrap_or(0);
    if count == 0 {
        return Err(Fault::new(format!("{name} expects a number above 0")));
    }
    budget.elements(count)?;
    let items = value.elements(budget)?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let mut parts: Vec<Vec<Value>> = Vec::new();
    if name == "batch" {
        parts.extend(items.chunks(count).map(<[Value]>::to_vec));
        if let (Some(fill), Some(last)) = (&fill, parts.last_mut()) {
            last.resize(count, fill.clone());
        }
    } else {
        let (each, larger) = (items.len() / count, items.len() % count);
        let mut rest = &items[..];
        for place in 0..count {
            let (part, after) = rest.split_at(each + usize::from(place < larger));
            let mut part = part.to_vec();
            if let Some(fill) = &fill
                && place >= larger
                && larger > 0
            {
                part.push(fill.clone());
            }
            parts.push(part);
            rest = after;
        }
    }
    let parts = parts.into_iter().map(|part| Value::list(part, budget));
    Value::list(parts.collect::<Result<_>>()?, budget)
}

fn map(evaluator: &mut Evaluator<'_>, value: &Value, mut arguments: Arguments) -> Result<Value> {
    let budget = evaluator.budget;
    let items = value.elements(budget)?;
    if arguments.positional.is_empty() {
        let [path, default] = arguments.bind("map", ["attribute", "default"], 1)?;
        let path = path.unwrap_or(Value::None);
        let found = items
            .iter()
            .map(|item| match field(evaluator, item, &path)? {
                Value::Undefined(message) => {
                    Ok(default.clone().unwrap_or(Value::Undefined(message)))
                }
                found => Ok(found),
            });
        return Value::list(found.collect::<Result<_>>()?, budget);
    }
    let filter = text("map", Some(arguments.positional.remove(0)))?;
    let mut made = Vec::new();
    for item in items {
        let again = copy(&arguments, budget)?;
        made.push(budget.deeper(|| filters::apply(evaluator, &filter, item, again))?);
    }
    Value::list(made, budget)
}

fn copy(arguments: &Arguments, budget: &Budget) -> Result<Arguments> {
    budget.elements(arguments.positional.len() + arguments.named.len())?;
    Ok(Arguments {
        positional: arguments.positional.clone(),
        named: arguments
            .named
            .iter()
            .map(|(name, value)| (Rc::clone(name), value.clone()))
            .collect(),
    })
}

fn select(
    evaluator: &Evaluator<'_>,
    name: &str,
    value: &Value,
    mut arguments: Arguments,
) -> Result<Value> {
    let budget = evaluator.budget;
    let wanted = name.starts_with("select");
    let mut first = |what: &str| {
        if arguments.positional.is_empty() {
            return Err(Fault::new(format!("{name} expects {what}")));
        }
        Ok(arguments.positional.remove(0))
    };
    let path = if name.ends_with("attr") {
        Some(first("the name of an attribute")?)
    } else {
        None
    };
    let test = first("a test")
        .ok()
        .map(|test| text(name, Some(test)))
        .transpose()?;
    let mut kept = Vec::new();
    for item in value.elements(budget)? {
        let looked_at = match &path {
            Some(path) => field(evaluator, &item, path)?,
            None => item.clone(),
        };
        let holds = match &test {
            Some(test) => {
                predicates::holds(evaluator, test, &looked_at, copy(&arguments, budget)?)?
            }
            None => looked_at.is_true(),
        };
        if holds == wanted {
            kept.push(item);
        }
    }
    Value::list(kept, budget)
}
