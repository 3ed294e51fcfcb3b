//! Runs the statements of a parsed template.

use std::collections::HashMap;
use std::rc::Rc;

use minijinja::machinery::ast::{self, Expr, Stmt};

use super::arguments::Arguments;
use super::budget::Budget;
use super::fault::{Fault, Result};
use super::value::{Dict, Function, Value};

/// What follows a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// Variables, and where to look for others.
struct Scope<'t> {
    variables: HashMap<&'t str, Value>,
    parent: Option<usize>,
}

/// A macro, and the scope whose variables it sees.
#[derive(Clone, Copy)]
struct Macro<'t> {
    declaration: &'t ast::Macro<'t>,
    scope: usize,
}

/// A loop on its way.
pub(super) struct Loop<'t> {
    pub items: Rc<Vec<Value>>,
    pub index: usize,
    pub depth: usize,
    pub last_seen: Option<Vec<Value>>,
    /// The statement, where `loop(...)` may run it again, and the scope around it.
    recursive: Option<(&'t ast::ForLoop<'t>, usize)>,
}

/// The state of a rendering.
pub struct Evaluator<'t> {
    pub(super) budget: &'t Budget,
    pub(super) clock: fn() -> jiff::civil::DateTime,
    out: String,
    scopes: Vec<Scope<'t>>,
    scope: usize,
    macros: Vec<Macro<'t>>,
    pub(super) loops: Vec<Loop<'t>>,
    pub(super) namespaces: Vec<Dict>,
}

impl<'t> Evaluator<'t> {
    /// With the variables that the caller gives.
    pub fn new(
        budget: &'t Budget,
        given: Vec<(&'t str, Value)>,
        clock: fn() -> jiff::civil::DateTime,
    ) -> Self {
        let functions = [
            ("range", Function::Range),
            ("dict", Function::Dict),
            ("namespace", Function::Namespace),
            ("raise_exception", Function::RaiseException),
            ("strftime_now", Function::StrftimeNow),
        ];
        let functions = functions.map(|(name, function)| (name, Value::Function(function)));
        Self {
            budget,
            clock,
            out: String::new(),
            scopes: vec![Scope {
                variables: functions.into_iter().chain(given).collect(),
                parent: None,
            }],
            scope: 0,
            macros: Vec::new(),
            loops: Vec::new(),
            namespaces: Vec::new(),
        }
    }

    /// The text of a template.
    pub fn render(mut self, template: &'t Stmt<'t>) -> Result<String> {
        self.statement(template)?;
        Ok(self.out)
    }

    pub(super) fn variable(&self, name: &str) -> Value {
        let mut scope = Some(self.scope);
        while let Some(place) = scope {
            if let Some(value) = self.scopes[place].variables.get(name) {
                return value.clone();
            }
            scope = self.scopes[place].parent;
        }
        Value::undefined(name)
    }

    fn set(&mut self, name: &'t str, value: Value) {
        self.scopes[self.scope].variables.insert(name, value);
    }

    /// Runs `work` in a new scope within `parent`.
    fn within<T>(&mut self, parent: usize, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let budget = self.budget;
        budget.work(4)?;
        let (outer, macros, place) = (self.scope, self.macros.len(), self.scopes.len());
        self.scopes.push(Scope {
            variables: HashMap::new(),
            parent: Some(parent),
        });
        self.scope = place;
        let result = budget.deeper(|| work(self));
        self.scope = outer;
        if self.macros.len() == macros {
            self.scopes.truncate(place);
        } else {
            // A macro may still look here.
            budget.elements(8)?;
        }
        result
    }

    /// What `work` prints.
    fn captured(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<String> {
        let outer = std::mem::take(&mut self.out);
        let result = work(self);
        let inner = std::mem::replace(&mut self.out, outer);
        result.map(|()| inner)
    }

    fn print(&mut self, text: &str) -> Result<()> {
        self.budget.make(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    fn block(&mut self, body: &'t [Stmt<'t>]) -> Result<Flow> {
        for statement in body {
            match self.statement(statement)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &'t Stmt<'t>) -> Result<Flow> {
        let budget = self.budget;
        budget.work(1)?;
        let line = line(statement);
        let result = budget.deeper(|| self.run(statement));
        result.map_err(|fault| fault.at(line))
    }

    fn run(&mut self, statement: &'t Stmt<'t>) -> Result<Flow> {
        match statement {
            Stmt::Template(template) => return self.block(&template.children),
            Stmt::EmitRaw(raw) => self.print(raw.raw)?,
            Stmt::EmitExpr(emitted) => {
                let value = self.evaluate(&emitted.expr)?;
                let text = value.to_text(self.budget)?;
                self.print(&text)?;
            }
            Stmt::IfCond(condition) => {
                return if self.evaluate(&condition.expr)?.is_true() {
                    self.block(&condition.true_body)
                } else {
                    self.block(&condition.false_body)
                };
            }
            Stmt::ForLoop(repeated) => {
                let items = self.evaluate(&repeated.iter)?;
                self.repeat(repeated, &items, 1)?;
            }
            Stmt::WithBlock(with) => {
                let mut values = Vec::new();
                for (target, value) in &with.assignments {
                    values.push((target, self.evaluate(value)?));
                }
                return self.within(self.scope, |inner| {
                    for (target, value) in values {
                        inner.assign(target, value)?;
                    }
                    inner.block(&with.body)
                });
            }
            Stmt::Set(set) => {
                let value = self.evaluate(&set.expr)?;
                self.assign(&set.target, value)?;
            }
            Stmt::SetBlock(set) => {
                let text = self.in_own_scope(&set.body)?;
                let mut value = Value::Str(text.into());
                if let Some(filter) = &set.filter {
                    value = self.filtered(filter, value)?;
                }
                self.assign(&set.target, value)?;
            }
            Stmt::FilterBlock(filter) => {
                let text = self.in_own_scope(&filter.body)?;
                let value = self.filtered(&filter.filter, Value::Str(text.into()))?;
                let text = value.to_text(self.budget)?;
                self.print(&text)?;
            }
            Stmt::AutoEscape(escape) => {
                if self.evaluate(&escape.enabled)?.is_true() {
                    return Err(Fault::new("autoescape is for HTML, which a prompt is not"));
                }
                return self.within(self.scope, |inner| inner.block(&escape.body));
            }
            Stmt::Macro(declaration) => {
                let value = self.declare(declaration)?;
                self.set(declaration.name, value);
            }
            Stmt::CallBlock(call) => {
                let caller = self.declare(&call.macro_decl)?;
                let callee = self.evaluate(&call.call.expr)?;
                let mut arguments = self.arguments(&call.call.args)?;
                arguments.named.push(("caller".into(), caller));
                let text = self.call(callee, arguments)?.to_text(self.budget)?;
                self.print(&text)?;
            }
            Stmt::Do(run) => {
                let callee = self.evaluate(&run.call.expr)?;
                let arguments = self.arguments(&run.call.args)?;
                self.call(callee, arguments)?;
            }
            Stmt::Block(block) => return self.within(0, |inner| inner.block(&block.body)),
            Stmt::Break(_) => return Ok(Flow::Break),
            Stmt::Continue(_) => return Ok(Flow::Continue),
            Stmt::Import(_) | Stmt::FromImport(_) | Stmt::Extends(_) | Stmt::Include(_) => {
                return Err(Fault::new(
                    "it wants another template; a chat template stands alone",
                ));
            }
        }
        Ok(Flow::Next)
    }

    fn in_own_scope(&mut self, body: &'t [Stmt<'t>]) -> Result<String> {
        self.captured(|outer| outer.within(outer.scope, |inner| inner.block(body).map(|_| ())))
    }

    fn declare(&mut self, declaration: &'t ast::Macro<'t>) -> Result<Value> {
        self.budget.elements(2)?;
        self.macros.push(Macro {
            declaration,
            scope: self.scope,
        });
        Ok(Value::Macro(self.macros.len() - 1))
    }

    /// Sets a name, the names of a tuple, or a field of a namespace.
    fn assign(&mut self, target: &'t Expr<'t>, value: Value) -> Result<()> {
        match target {
            Expr::Var(name) => {
                self.set(name.id, value);
                Ok(())
            }
            Expr::List(names) => {
                let values = value.elements(self.budget)?;
                if values.len() != names.items.len() {
                    return Err(Fault::new(format!(
                        "expected {} values to unpack, got {}",
                        names.items.len(),
                        values.len()
                    )));
                }
                for (name, value) in names.items.iter().zip(values) {
                    self.assign(name, value)?;
                }
                Ok(())
            }
            Expr::GetAttr(field) => match self.evaluate(&field.expr)? {
                Value::Namespace(place) => {
                    check_field(field.name)?;
                    self.namespaces[place].insert(Value::str(field.name), value, self.budget)
                }
                other => Err(Fault::new(format!(
                    "cannot assign attribute on a '{}', only on a namespace",
                    other.kind()
                ))),
            },
            _ => Err(Fault::new("cannot assign to this")),
        }
    }

    /// Goes through `items`; `depth` counts loops that call themselves, from 1.
    fn repeat(
        &mut self,
        repeated: &'t ast::ForLoop<'t>,
        items: &Value,
        depth: usize,
    ) -> Result<()> {
        let around = self.scope;
        let mut items = items.elements(self.budget)?;
        if let Some(filter) = &repeated.filter_expr {
            let mut kept = Vec::new();
            for item in items {
                let fits = self.within(around, |inner| {
                    inner.assign(&repeated.target, item.clone())?;
                    Ok(inner.evaluate(filter)?.is_true())
                })?;
                if fits {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            return self.within(around, |inner| inner.block(&repeated.else_body).map(|_| ()));
        }
        let items = Rc::new(items);
        let place = self.loops.len();
        self.loops.push(Loop {
            items: Rc::clone(&items),
            index: 0,
            depth,
            last_seen: None,
            recursive: repeated.recursive.then_some((repeated, around)),
        });
        let mut result = Ok(());
        for (index, item) in items.iter().enumerate() {
            self.loops[place].index = index;
            let flow = self.within(around, |inner| {
                inner.set("loop", Value::Loop(place));
                inner.assign(&repeated.target, item.clone())?;
                inner.block(&repeated.body)
            });
            match flow {
                Ok(Flow::Break) => break,
                Ok(_) => {}
                Err(fault) => {
                    result = Err(fault);
                    break;
                }
            }
        }
        self.loops.truncate(place);
        result
    }

    /// `loop(items)` within a recursive loop.
    pub(super) fn repeat_again(&mut self, place: usize, arguments: Arguments) -> Result<Value> {
        let [items] = arguments.bind("loop", ["iterable"], 1)?;
        let state = self.loop_at(place)?;
        let (recursive, depth) = (state.recursive, state.depth);
        let Some((repeated, around)) = recursive else {
            return Err(Fault::new("loop() needs {% for … recursive %}"));
        };
        let budget = self.budget;
        let outer = std::mem::replace(&mut self.scope, around);
        let text = budget.deeper(|| {
            self.captured(|inner| inner.repeat(repeated, &items.unwrap_or(Value::None), depth + 1))
        });
        self.scope = outer;
        text.map(|text| Value::Str(text.into()))
    }

    pub(super) fn loop_at(&self, place: usize) -> Result<&Loop<'t>> {
        self.loops
            .get(place)
            .ok_or_else(|| Fault::new("the loop is over"))
    }

    pub(super) fn macro_name(&self, place: usize) -> &'t str {
        self.macros[place].declaration.name
    }

    /// Calls a macro: its text.
    pub(super) fn call_macro(&mut self, place: usize, mut arguments: Arguments) -> Result<Value> {
        let Macro { declaration, scope } = self.macros[place];
        let budget = self.budget;
        let names = declaration
            .args
            .iter()
            .filter_map(|argument| match argument {
                Expr::Var(name) => Some(name.id),
                _ => None,
            });
        let names: Vec<&'t str> = names.collect();
        let first_default = names.len() - declaration.defaults.len().min(names.len());
        let body = |inner: &mut Self| -> Result<()> {
            let surplus = arguments
                .positional
                .split_off(arguments.positional.len().min(names.len()));
            let mut given = arguments.positional.into_iter();
            let mut named = arguments.named;
            for (at, name) in names.iter().enumerate() {
                let value = match given.next() {
                    Some(value) => value,
                    None => match named.iter().position(|(known, _)| **known == **name) {
                        Some(found) => named.remove(found).1,
                        None if at >= first_default => {
                            inner.evaluate(&declaration.defaults[at - first_default])?
                        }
                        None => {
                            Value::Undefined(format!("parameter '{name}' was not provided").into())
                        }
                    },
                };
                inner.set(name, value);
            }
            if let Some(found) = named.iter().position(|(known, _)| &**known == "caller") {
                let caller = named.remove(found).1;
                inner.set("caller", caller);
            }
            let mut pairs = Dict::default();
            for (name, value) in named {
                pairs.insert(Value::Str(name), value, budget)?;
            }
            inner.set("varargs", Value::tuple(surplus, budget)?);
            inner.set("kwargs", Value::Dict(Rc::new(pairs)));
            inner.block(&declaration.body).map(|_| ())
        };
        let text = self.captured(|outer| outer.within(scope, body))?;
        Ok(Value::Str(text.into()))
    }
}

/// Namespaces hold no hidden fields.
pub(super) fn check_field(name: &str) -> Result<()> {
    if name.starts_with('_') {
        return Err(Fault::new(format!(
            "a namespace cannot hold '{name}': it begins with an underscore"
        )));
    }
    Ok(())
}

fn line(statement: &Stmt<'_>) -> usize {
    let span = match statement {
        Stmt::Template(node) => node.span(),
        Stmt::EmitExpr(node) => node.span(),
        Stmt::EmitRaw(node) => node.span(),
        Stmt::ForLoop(node) => node.span(),
        Stmt::IfCond(node) => node.span(),
        Stmt::WithBlock(node) => node.span(),
        Stmt::Set(node) => node.span(),
        Stmt::SetBlock(node) => node.span(),
        Stmt::AutoEscape(node) => node.span(),
        Stmt::FilterBlock(node) => node.span(),
        Stmt::Block(node) => node.span(),
        Stmt::Import(node) => node.span(),
        Stmt::FromImport(node) => node.span(),
        Stmt::Extends(node) => node.span(),
        Stmt::Include(node) => node.span(),
        Stmt::Macro(node) => node.span(),
        Stmt::CallBlock(node) => node.span(),
        Stmt::Continue(node) => node.span(),
        Stmt::Break(node) => node.span(),
        Stmt::Do(node) => node.span(),
    };
    usize::from(span.start_line)
}
