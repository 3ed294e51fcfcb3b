//! Works out the expressions of a parsed template.

use std::rc::Rc;

use minijinja::machinery::ast::{self, BinOpKind, CallArg, CompareOpKind, Expr, UnaryOpKind};
use minijinja::value::ValueKind;

use super::arguments::{Arguments, text};
use super::evaluate::{Evaluator, check_field};
use super::fault::{Fault, Result};
use super::operators;
use super::value::{Dict, Function, Value};
use super::{containers, filters, format, predicates, strings};

/// Elements that `range` makes at most, as in the sandbox that templates are written for.
const MAX_RANGE: usize = 100_000;

impl<'t> Evaluator<'t> {
    pub(super) fn evaluate(&mut self, expression: &'t Expr<'t>) -> Result<Value> {
        let budget = self.budget;
        budget.work(1)?;
        budget.deeper(|| self.work_out(expression))
    }

    fn work_out(&mut self, expression: &'t Expr<'t>) -> Result<Value> {
        match expression {
            Expr::Var(name) => Ok(self.variable(name.id)),
            Expr::Const(constant) => self.constant(&constant.value),
            Expr::List(list) => {
                let items = list.items.iter().map(|item| self.evaluate(item));
                let items = items.collect::<Result<_>>()?;
                Value::list(items, self.budget)
            }
            Expr::Map(map) => {
                let mut pairs = Dict::default();
                for (key, value) in map.keys.iter().zip(&map.values) {
                    let (key, value) = (self.evaluate(key)?, self.evaluate(value)?);
                    pairs.insert(key, value, self.budget)?;
                }
                Ok(Value::Dict(Rc::new(pairs)))
            }
            Expr::UnaryOp(unary) => {
                let value = self.evaluate(&unary.expr)?;
                match unary.op {
                    UnaryOpKind::Not => Ok(Value::Bool(!value.is_true())),
                    UnaryOpKind::Neg => operators::negative(&value),
                }
            }
            Expr::BinOp(binary) => self.binary(binary),
            Expr::Compare(chain) => {
                let mut left = self.evaluate(&chain.expr)?;
                for step in &chain.ops {
                    let right = self.evaluate(&step.expr)?;
                    if !self.compared(step.op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::IfExpr(choice) => {
                if self.evaluate(&choice.test_expr)?.is_true() {
                    self.evaluate(&choice.true_expr)
                } else if let Some(other) = &choice.false_expr {
                    self.evaluate(other)
                } else {
                    Ok(Value::Undefined(
                        "the inline if has no else, and its condition is false".into(),
                    ))
                }
            }
            Expr::Filter(filter) => {
                let value = match &filter.expr {
                    Some(value) => self.evaluate(value)?,
                    None => return Err(Fault::new("there is nothing to filter")),
                };
                let arguments = self.arguments(&filter.args)?;
                filters::apply(self, filter.name, value, arguments)
            }
            Expr::Test(test) => {
                let value = self.evaluate(&test.expr)?;
                let arguments = self.arguments(&test.args)?;
                predicates::holds(self, test.name, &value, arguments).map(Value::Bool)
            }
            Expr::GetAttr(field) => {
                let value = self.evaluate(&field.expr)?;
                self.attribute(&value, field.name)
            }
            Expr::GetItem(item) => {
                let value = self.evaluate(&item.expr)?;
                let key = self.evaluate(&item.subscript_expr)?;
                self.item(&value, &key)
            }
            Expr::Slice(slice) => {
                let value = self.evaluate(&slice.expr)?;
                let mut bound = |bound: &'t Option<Expr<'t>>| {
                    bound
                        .as_ref()
                        .map_or(Ok(Value::None), |bound| self.evaluate(bound))
                };
                let bounds = [
                    bound(&slice.start)?,
                    bound(&slice.stop)?,
                    bound(&slice.step)?,
                ];
                operators::slice(&value, &bounds, self.budget)
            }
            Expr::Call(call) => {
                let callee = self.evaluate(&call.expr)?;
                let arguments = self.arguments(&call.args)?;
                self.call(callee, arguments)
            }
        }
    }

    fn constant(&self, value: &minijinja::Value) -> Result<Value> {
        match value.kind() {
            ValueKind::None => Ok(Value::None),
            ValueKind::Bool => Ok(Value::Bool(value.is_true())),
            ValueKind::String => Value::text(value.as_str().unwrap_or_default(), self.budget),
            ValueKind::Number if value.is_integer() => value
                .as_i64()
                .map(Value::Int)
                .ok_or_else(|| Fault::new(format!("the number {value} is too large"))),
            ValueKind::Number => Ok(Value::Float(f64::try_from(value.clone())?)),
            other => Err(Fault::new(format!("a constant of kind {other}"))),
        }
    }

    /// A row of `+` or of `~` from left to right. Texts are put together once for the whole row, as a
    /// conversation that is built up would otherwise be copied with every piece.
    fn row(&mut self, binary: &'t ast::BinOp<'t>) -> Result<Value> {
        let budget = self.budget;
        let concatenates = matches!(binary.op, BinOpKind::Concat);
        let mut operands = vec![&binary.right];
        let mut rest = &binary.left;
        while let Expr::BinOp(inner) = rest
            && std::mem::discriminant(&inner.op) == std::mem::discriminant(&binary.op)
        {
            budget.work(1)?;
            operands.push(&inner.right);
            rest = &inner.left;
        }
        let mut sum = self.evaluate(rest)?;
        let mut text: Option<String> = None;
        while let Some(operand) = operands.pop() {
            let mut next = self.evaluate(operand)?;
            if concatenates {
                (sum, next) = (
                    Value::Str(sum.to_text(budget)?),
                    Value::Str(next.to_text(budget)?),
                );
            }
            match (&mut text, &sum, &next) {
                (Some(text), _, Value::Str(piece)) => {
                    budget.make(piece.len())?;
                    text.push_str(piece);
                }
                (None, Value::Str(start), Value::Str(piece)) => {
                    budget.make(start.len() + piece.len())?;
                    text = Some([&**start, &**piece].concat());
                    sum = Value::str("");
                }
                _ => {
                    if let Some(text) = text.take() {
                        sum = Value::Str(text.into());
                    }
                    sum = operators::add(&sum, &next, budget)?;
                }
            }
        }
        Ok(text.map_or(sum, |text| Value::Str(text.into())))
    }

    fn binary(&mut self, binary: &'t ast::BinOp<'t>) -> Result<Value> {
        if matches!(binary.op, BinOpKind::Add | BinOpKind::Concat) {
            return self.row(binary);
        }
        let left = self.evaluate(&binary.left)?;
        match binary.op {
            BinOpKind::ScAnd if !left.is_true() => return Ok(left),
            BinOpKind::ScOr if left.is_true() => return Ok(left),
            _ => {}
        }
        let right = self.evaluate(&binary.right)?;
        let compared = match binary.op {
            BinOpKind::ScAnd | BinOpKind::ScOr => return Ok(right),
            BinOpKind::Mul => return operators::multiply(&left, &right, self.budget),
            BinOpKind::Rem => {
                return match &left {
                    Value::Str(layout) => format::percent(layout, &right, self.budget),
                    _ => operators::arithmetic(binary.op, &left, &right),
                };
            }
            BinOpKind::Add
            | BinOpKind::Concat
            | BinOpKind::Sub
            | BinOpKind::Div
            | BinOpKind::FloorDiv
            | BinOpKind::Pow => {
                return operators::arithmetic(binary.op, &left, &right);
            }
            BinOpKind::Eq => CompareOpKind::Eq,
            BinOpKind::Ne => CompareOpKind::Ne,
            BinOpKind::Lt => CompareOpKind::Lt,
            BinOpKind::Lte => CompareOpKind::Lte,
            BinOpKind::Gt => CompareOpKind::Gt,
            BinOpKind::Gte => CompareOpKind::Gte,
            BinOpKind::In => CompareOpKind::In,
        };
        self.compared(compared, &left, &right).map(Value::Bool)
    }

    fn compared(&self, how: CompareOpKind, left: &Value, right: &Value) -> Result<bool> {
        let budget = self.budget;
        Ok(match how {
            CompareOpKind::Eq => left.equals(right, budget)?,
            CompareOpKind::Ne => !left.equals(right, budget)?,
            CompareOpKind::Lt => left.compare(right, budget)?.is_lt(),
            CompareOpKind::Lte => left.compare(right, budget)?.is_le(),
            CompareOpKind::Gt => left.compare(right, budget)?.is_gt(),
            CompareOpKind::Gte => left.compare(right, budget)?.is_ge(),
            CompareOpKind::In => operators::contains(right, left, budget)?,
            CompareOpKind::NotIn => !operators::contains(right, left, budget)?,
        })
    }

    pub(super) fn arguments(&mut self, given: &'t [CallArg<'t>]) -> Result<Arguments> {
        let mut arguments = Arguments::default();
        self.budget.elements(given.len())?;
        for argument in given {
            match argument {
                CallArg::Pos(value) => {
                    let value = self.evaluate(value)?;
                    arguments.positional.push(value);
                }
                CallArg::Kwarg(name, value) => {
                    let value = self.evaluate(value)?;
                    arguments.named.push(((*name).into(), value));
                }
                CallArg::PosSplat(values) => {
                    let values = self.evaluate(values)?.elements(self.budget)?;
                    arguments.positional.extend(values);
                }
                CallArg::KwargSplat(pairs) => match self.evaluate(pairs)? {
                    Value::Dict(pairs) => {
                        self.budget.elements(pairs.len())?;
                        for (name, value) in pairs.pairs() {
                            let name = text("**", Some(name.clone()))?;
                            arguments.named.push((name, value.clone()));
                        }
                    }
                    other => {
                        return Err(Fault::new(format!(
                            "** wants a dict, not '{}'",
                            other.defined()?.kind()
                        )));
                    }
                },
            }
        }
        Ok(arguments)
    }

    /// A filter chain of a `set` or `filter` block over what the block printed.
    pub(super) fn filtered(&mut self, chain: &'t Expr<'t>, printed: Value) -> Result<Value> {
        let Expr::Filter(filter) = chain else {
            return Err(Fault::new("expected a filter"));
        };
        let value = match &filter.expr {
            Some(inner) => {
                let budget = self.budget;
                budget.deeper(|| self.filtered(inner, printed))?
            }
            None => printed,
        };
        let arguments = self.arguments(&filter.args)?;
        filters::apply(self, filter.name, value, arguments)
    }

    pub(super) fn call(&mut self, callee: Value, arguments: Arguments) -> Result<Value> {
        let budget = self.budget;
        match callee {
            Value::Macro(place) => self.call_macro(place, arguments),
            Value::Loop(place) => self.repeat_again(place, arguments),
            Value::Function(function) => self.call_function(function, arguments),
            Value::Method(bound) => match &bound.0 {
                Value::Str(own) if &*bound.1 == "format" => {
                    let find = |name: &str| self.format_field(name, &arguments);
                    format::braces(own, &mut { find }, budget)
                }
                Value::Str(own) => strings::call(own, &bound.1, arguments, budget),
                Value::List(own) | Value::Tuple(own) => {
                    containers::call_list(own, &bound.1, arguments, budget)
                }
                Value::Dict(own) => containers::call_dict(own, &bound.1, arguments, budget),
                other => Err(Fault::new(format!("'{}' has no methods", other.kind()))),
            },
            other => Err(Fault::new(format!(
                "'{}' object is not callable",
                other.defined()?.kind()
            ))),
        }
    }

    fn call_function(&mut self, function: Function, arguments: Arguments) -> Result<Value> {
        let budget = self.budget;
        match function {
            Function::Range => {
                let whole = |value: Value| {
                    value
                        .as_int()
                        .ok_or_else(|| Fault::new("range() expects whole numbers"))
                };
                let given = arguments.positional.into_iter().map(whole);
                let (start, stop, step) = match given.collect::<Result<Vec<_>>>()?[..] {
                    [stop] => (0, stop, 1),
                    [start, stop] => (start, stop, 1),
                    [start, stop, step] if step != 0 => (start, stop, step),
                    _ => {
                        return Err(Fault::new(
                            "range() expects 1 to 3 numbers and a step that is not 0",
                        ));
                    }
                };
                let span = (i128::from(stop) - i128::from(start)) * i128::from(step.signum());
                let count = usize::try_from(span.max(0)).unwrap_or(usize::MAX);
                let count =
                    count.div_ceil(usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX));
                if count > MAX_RANGE {
                    return Err(Fault::new(format!(
                        "range() of {count} elements; at most {MAX_RANGE} are allowed"
                    )));
                }
                let items = (0..count as i64).map(|place| Value::Int(start + place * step));
                Value::list(items.collect(), budget)
            }
            Function::Dict => Ok(Value::Dict(Rc::new(self.pairs(arguments)?))),
            Function::Namespace => {
                let pairs = self.pairs(arguments)?;
                for (name, _) in pairs.pairs() {
                    check_field(name.as_str().unwrap_or_default())?;
                }
                budget.elements(4)?;
                self.namespaces.push(pairs);
                Ok(Value::Namespace(self.namespaces.len() - 1))
            }
            Function::RaiseException => {
                let [message] = arguments.bind("raise_exception", ["message"], 1)?;
                let message = message.unwrap_or(Value::None).to_text(budget)?;
                Err(Fault::new(&*message))
            }
            Function::StrftimeNow => {
                let [layout] = arguments.bind("strftime_now", ["format"], 1)?;
                let layout = text("strftime_now", layout)?;
                // No directive is laid out wider than a few hundred characters.
                budget.make_times(layout.len(), 128)?;
                // A time without a zone has neither name nor offset.
                let plain = layout.replace("%Z", "").replace("%z", "");
                let now = jiff::fmt::strtime::format(&plain, (self.clock)());
                let now = now.map_err(|error| Fault::new(format!("strftime_now: {error}")))?;
                Value::text(now, budget)
            }
            Function::Cycle(place) => {
                let index = self.loop_at(place)?.index;
                let choices = arguments.positional;
                match choices.len() {
                    0 => Err(Fault::new("no items for cycling given")),
                    count => Ok(choices[index % count].clone()),
                }
            }
            Function::Changed(place) => {
                self.loop_at(place)?;
                let seen = arguments.positional;
                let changed = match &self.loops[place].last_seen {
                    Some(last) if last.len() == seen.len() => {
                        let mut changed = false;
                        for (a, b) in last.iter().zip(&seen) {
                            changed |= !a.equals(b, budget)?;
                        }
                        changed
                    }
                    _ => true,
                };
                self.loops[place].last_seen = Some(seen);
                Ok(Value::Bool(changed))
            }
        }
    }

    /// The pairs of `dict(other, key=value)`.
    fn pairs(&self, arguments: Arguments) -> Result<Dict> {
        let budget = self.budget;
        let mut pairs = Dict::default();
        match &arguments.positional[..] {
            [] => {}
            [Value::Dict(other)] => {
                budget.elements(other.len() * 2)?;
                pairs = Dict::clone(other);
            }
            [other] => {
                for pair in other.defined()?.elements(budget)? {
                    match &pair.elements(budget)?[..] {
                        [key, value] => pairs.insert(key.clone(), value.clone(), budget)?,
                        _ => return Err(Fault::new("dict() expects pairs")),
                    }
                }
            }
            _ => return Err(Fault::new("expected at most 1 argument besides names")),
        }
        for (name, value) in arguments.named {
            pairs.insert(Value::Str(name), value, budget)?;
        }
        Ok(pairs)
    }

    /// What `{name.field[0]}` of a format stands for.
    fn format_field(&mut self, name: &str, arguments: &Arguments) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let missing = || Fault::new(format!("format() has no argument '{first}'"));
        let mut value = match first.parse::<usize>() {
            Ok(place) => arguments.positional.get(place).cloned(),
            Err(_) => {
                let named = arguments.named.iter().find(|(known, _)| **known == *first);
                named.map(|(_, value)| value.clone())
            }
        }
        .ok_or_else(missing)?;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                value = self.attribute(&value, &after[..end])?;
                rest = &after[end..];
            } else {
                let inner = rest[1..]
                    .split_once(']')
                    .ok_or_else(|| Fault::new("Missing ']' in format string"))?;
                let key = inner
                    .0
                    .parse()
                    .map_or_else(|_| Value::str(inner.0), Value::Int);
                value = self.item(&value, &key)?;
                rest = inner.1;
                if !rest.is_empty() && !rest.starts_with(['.', '[']) {
                    return Err(Fault::new(
                        "only '.' or '[' may follow ']' in format string",
                    ));
                }
            }
        }
        Ok(value)
    }

    /// `value.name`: a method or field, else an item.
    pub(super) fn attribute(&self, value: &Value, name: &str) -> Result<Value> {
        let budget = self.budget;
        // Whatever is done with it names it.
        let unsafe_one = || {
            let message = format!(
                "access to attribute '{name}' of '{}' object is unsafe",
                value.kind()
            );
            Ok(Value::Undefined(message.into()))
        };
        let method = || Ok(Value::Method(Rc::new((value.clone(), name.into()))));
        if name.starts_with('_') && !matches!(value, Value::Dict(_) | Value::Undefined(_)) {
            return unsafe_one();
        }
        match value {
            Value::Undefined(message) => return Err(Fault::new(&**message)),
            Value::Str(_) if strings::METHODS.contains(&name) => return method(),
            Value::List(_) if containers::LIST_CHANGES.contains(&name) => return unsafe_one(),
            Value::Dict(_) if containers::DICT_CHANGES.contains(&name) => return unsafe_one(),
            Value::List(_) if containers::LIST_METHODS.contains(&name) => return method(),
            Value::Tuple(_) if containers::LIST_METHODS[1..].contains(&name) => return method(),
            Value::Dict(_) if containers::DICT_METHODS.contains(&name) => return method(),
            Value::Dict(pairs) => {
                if let Some(found) = pairs.get_str(name, budget)? {
                    return Ok(found.clone());
                }
                if name.starts_with("__") {
                    return unsafe_one();
                }
            }
            Value::Namespace(place) => {
                if let Some(found) = self.namespaces[*place].get_str(name, budget)? {
                    return Ok(found.clone());
                }
            }
            Value::Loop(place) => {
                if let Some(found) = self.loop_field(*place, name)? {
                    return Ok(found);
                }
            }
            Value::Macro(place) if name == "name" => {
                return Ok(Value::str(self.macro_name(*place)));
            }
            _ => {}
        }
        Ok(Value::Undefined(
            format!("'{} object' has no attribute '{name}'", value.kind()).into(),
        ))
    }

    /// `value[key]`: an item, else a method or field.
    pub(super) fn item(&self, value: &Value, key: &Value) -> Result<Value> {
        let budget = self.budget;
        budget.work(1)?;
        key.defined()?;
        match (value, key.as_int()) {
            (Value::Undefined(message), _) => return Err(Fault::new(&**message)),
            (Value::Dict(pairs), _) => {
                if let Some(found) = pairs.get(key, budget)? {
                    return Ok(found.clone());
                }
            }
            (Value::List(sequence) | Value::Tuple(sequence), Some(place)) => {
                let length = sequence.items.len() as i64;
                let place = if place < 0 {
                    place.saturating_add(length)
                } else {
                    place
                };
                let found = usize::try_from(place)
                    .ok()
                    .and_then(|place| sequence.items.get(place));
                if let Some(found) = found {
                    return Ok(found.clone());
                }
            }
            (Value::Str(own), Some(place)) => {
                budget.read(own.len())?;
                let place = if place < 0 {
                    place.saturating_add(own.chars().count() as i64)
                } else {
                    place
                };
                let found = usize::try_from(place)
                    .ok()
                    .and_then(|place| own.chars().nth(place));
                if let Some(found) = found {
                    return Value::text(found, budget);
                }
            }
            _ => {}
        }
        match key {
            Value::Str(name) => self.attribute(value, name),
            key => Ok(Value::Undefined(
                format!(
                    "{} object has no element {}",
                    value.kind(),
                    key.to_text(budget)?
                )
                .into(),
            )),
        }
    }

    fn loop_field(&self, place: usize, name: &str) -> Result<Option<Value>> {
        let state = self.loop_at(place)?;
        let (index, length) = (state.index as i64, state.items.len() as i64);
        let neighbour = |place: Option<usize>| {
            let found = place.and_then(|place| state.items.get(place).cloned());
            found.unwrap_or_else(|| Value::Undefined("there is no such item of the loop".into()))
        };
        Ok(Some(match name {
            "index" => Value::Int(index + 1),
            "index0" => Value::Int(index),
            "revindex" => Value::Int(length - index),
            "revindex0" => Value::Int(length - index - 1),
            "first" => Value::Bool(index == 0),
            "last" => Value::Bool(index + 1 == length),
            "length" => Value::Int(length),
            "depth" => Value::Int(state.depth as i64),
            "depth0" => Value::Int(state.depth as i64 - 1),
            "previtem" => neighbour(state.index.checked_sub(1)),
            "nextitem" => neighbour(Some(state.index + 1)),
            "cycle" => Value::Function(Function::Cycle(place)),
            "changed" => Value::Function(Function::Changed(place)),
            _ => return Ok(None),
        }))
    }
}
