//! What a pickle stream makes: values in one arena, referring to each other by index.

use std::rc::Rc;

use super::globals::Global;
use crate::Dtype;

/// Index of a value.
pub(super) type Id = u32;

/// Several values, shared where a tuple is copied.
pub(super) type Ids = Rc<[Id]>;

#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    /// Bytes, big integers, sets, devices: kept out, as no tensor is made of them.
    Opaque,
    Tuple(Ids),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage {
        dtype: Option<Dtype>,
        key: Rc<str>,
        elements: usize,
    },
    Tensor(Tensor),
}

/// A tensor as pickled; nothing in it has been checked against its storage.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub dtype: Option<Dtype>,
    pub key: Rc<str>,
    pub storage_elements: usize,
    pub offset: usize,
    pub shape: Rc<[usize]>,
    pub strides: Rc<[usize]>,
}

/// An error at an offset.
#[derive(Debug)]
pub(super) struct Fault {
    pub offset: usize,
    pub problem: String,
}

/// All values, and which one is the result.
pub(super) struct Loaded {
    /// Bytes of the stream, its STOP included.
    pub bytes: usize,
    pub values: Vec<Value>,
    pub root: Id,
}

impl Loaded {
    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id as usize).unwrap_or(&Value::None)
    }
}

/// A value's kind in words, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::None => "None",
        Value::Bool(_) => "a bool",
        Value::Int(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Text(_) => "a string",
        Value::Opaque => "bytes, a set or a device",
        Value::Tuple(_) => "a tuple",
        Value::List(_) => "a list",
        Value::Dict(_) => "a dict",
        Value::Global(_) => "a class",
        Value::Storage { .. } => "a storage",
        Value::Tensor(_) => "a tensor",
    }
}
