//! A pickle machine that can only make data.
//!
//! Values live in one arena and refer to each other by index, so neither depth nor cycles can exhaust
//! the call stack. Each opcode makes at most one value, and a few names stand for the classes PyTorch
//! uses; any other name, and any other opcode, is an error with its offset.

use std::collections::HashMap;
use std::rc::Rc;

use super::globals::{Global, clip, find_global};
use super::value::{Fault, Id, Loaded, Tensor, Value, kind};

/// Most values one stream may make; a checkpoint of thousands of tensors makes some hundred thousand.
const MAX_VALUES: usize = 4_000_000;
/// Most elements that calls may copy (dict items, sizes, strides): one short opcode copies many.
const MAX_COPIED: usize = 8_000_000;

/// Runs a stream to its STOP.
pub(super) fn load(bytes: &[u8]) -> Result<Loaded, Fault> {
    let mut machine = Machine {
        bytes,
        ..Machine::default()
    };
    loop {
        let offset = machine.position;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                return Ok(Loaded {
                    bytes: machine.position,
                    values: machine.values,
                    root,
                });
            }
            Err(problem) => return Err(Fault { offset, problem }),
        }
    }
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    /// A map, so that a slot's number claims no memory.
    memo: HashMap<usize, Id>,
    copied: usize,
}

type Step<T = ()> = Result<T, String>;

impl<'a> Machine<'a> {
    fn step(&mut self) -> Step<Option<Id>> {
        let [opcode] = self.array::<1>()?;
        match opcode {
            0x80 => {
                let [version] = self.array()?;
                if !(2..=5).contains(&version) {
                    return Err(format!(
                        "pickle protocol {version} is not read, only 2 to 5"
                    ));
                }
            }
            0x95 => drop(self.array::<8>()?), // FRAME: only a hint for buffering
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None)?,
            0x88 | 0x89 => self.push(Value::Bool(opcode == 0x88))?,
            b'J' => self.int(|array| i32::from_le_bytes(array).into())?,
            b'K' => self.int(|[byte]: [u8; 1]| byte.into())?,
            b'M' => self.int(|array| u16::from_le_bytes(array).into())?,
            0x8a => {
                let [length] = self.array()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value))?;
            }
            0x8c => {
                let [length] = self.array()?;
                self.text(length.into())?;
            }
            b'X' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            0x8d => {
                let length = self.length8()?;
                self.text(length)?;
            }
            b'U' => {
                let [length] = self.array()?;
                self.text(length.into())?;
            }
            b'T' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            b'C' => {
                let [length] = self.array()?;
                self.opaque(length.into())?;
            }
            b'B' => {
                let length = self.length4()?;
                self.opaque(length)?;
            }
            0x8e => {
                let length = self.length8()?;
                self.opaque(length)?;
            }
            b']' => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b')' => self.push(Value::Tuple([].into()))?,
            0x8f => self.push(Value::Opaque)?,
            0x90 => self.add_to_set()?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items.into()))?;
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start = self
                    .stack
                    .len()
                    .checked_sub(count)
                    .filter(|&start| start >= self.floor());
                let items = self.stack.split_off(start.ok_or("the stack is empty")?);
                self.push(Value::Tuple(items.into()))?;
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items))?;
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                let items = pairs(&items)?;
                self.push(Value::Dict(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'q' => {
                let [slot] = self.array()?;
                self.remember(slot.into())?;
            }
            b'r' => {
                let slot = self.length4()?;
                self.remember(slot)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'h' => {
                let [slot] = self.array()?;
                self.recall(slot.into())?;
            }
            b'j' => {
                let slot = self.length4()?;
                self.recall(slot)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                let global = find_global(&module, &name)?;
                self.push(Value::Global(global))?;
            }
            0x93 => {
                let name = self.pop_text()?;
                let module = self.pop_text()?;
                let global = find_global(&module, &name)?;
                self.push(Value::Global(global))?;
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let callee = self.pop()?;
                let value = self.call(callee, arguments)?;
                self.stack.push(value);
            }
            b'b' => self.build()?,
            b'Q' => self.persistent()?,
            other => return Err(refuse(other)),
        }
        Ok(None)
    }

    // Reading.

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        let stop = self.position.checked_add(length);
        let part = stop
            .and_then(|stop| self.bytes.get(self.position..stop))
            .ok_or_else(|| {
                format!(
                    "the stream ends: {length} bytes expected, {} left",
                    self.bytes.len() - self.position
                )
            })?;
        self.position += length;
        Ok(part)
    }

    fn array<const SIZE: usize>(&mut self) -> Step<[u8; SIZE]> {
        let part = self.take(SIZE)?;
        part.try_into().map_err(|_| "the stream ends".to_owned())
    }

    fn length4(&mut self) -> Step<usize> {
        let length = u32::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| format!("a length of {length}"))
    }

    fn length8(&mut self) -> Step<usize> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| format!("a length of {length}"))
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.bytes[self.position..];
        let length = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or("a name without an end")?;
        let line = self.take(length)?;
        self.position += 1;
        String::from_utf8(line.to_vec()).map_err(|_| "a name that is not UTF-8".to_owned())
    }

    // Making values.

    fn push(&mut self, value: Value) -> Step {
        let id = self.make(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn make(&mut self, value: Value) -> Step<Id> {
        if self.values.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        let id = Id::try_from(self.values.len()).map_err(|_| "too many values")?;
        self.values.push(value);
        Ok(id)
    }

    fn int<const SIZE: usize>(&mut self, read: impl Fn([u8; SIZE]) -> i64) -> Step {
        let value = read(self.array()?);
        self.push(Value::Int(value))
    }

    fn long(&mut self, length: usize) -> Step {
        let part = self.take(length)?;
        if length > 8 {
            return self.push(Value::Opaque);
        }
        let negative = part.last().is_some_and(|&byte| byte & 0x80 != 0);
        let mut array = if negative { [0xff; 8] } else { [0; 8] };
        array[..length].copy_from_slice(part);
        self.push(Value::Int(i64::from_le_bytes(array)))
    }

    fn text(&mut self, length: usize) -> Step {
        let part = self.take(length)?;
        let text = std::str::from_utf8(part).map_err(|_| "a string that is not UTF-8")?;
        self.push(Value::Text(text.into()))
    }

    fn opaque(&mut self, length: usize) -> Step {
        self.take(length)?;
        self.push(Value::Opaque)
    }

    // The stack. What is under the topmost mark is out of reach.

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Id> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty".to_owned());
        }
        self.stack
            .pop()
            .ok_or_else(|| "the stack is empty".to_owned())
    }

    fn top(&self) -> Step<Id> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor() => Ok(id),
            _ => Err("the stack is empty".to_owned()),
        }
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark on the stack")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn pop_text(&mut self) -> Step<Rc<str>> {
        let id = self.pop()?;
        match self.value(id) {
            Value::Text(text) => Ok(text.clone()),
            _ => Err("a name that is not a string".to_owned()),
        }
    }

    fn value(&self, id: Id) -> &Value {
        self.values.get(id as usize).unwrap_or(&Value::None)
    }

    fn top_value(&mut self) -> Step<&mut Value> {
        let id = self.top()?;
        self.values
            .get_mut(id as usize)
            .ok_or_else(|| "the stack is empty".to_owned())
    }

    fn append(&mut self, items: &[Id]) -> Step {
        match self.top_value()? {
            Value::List(list) => list.extend_from_slice(items),
            other => return Err(format!("appending to {}", kind(other))),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Step {
        let items = pairs(items)?;
        match self.top_value()? {
            Value::Dict(dict) => dict.extend(items),
            other => return Err(format!("setting an item of {}", kind(other))),
        }
        Ok(())
    }

    fn add_to_set(&mut self) -> Step {
        self.pop_to_mark()?;
        match self.top_value()? {
            Value::Opaque => Ok(()),
            other => Err(format!("adding to {}", kind(other))),
        }
    }

    fn remember(&mut self, slot: usize) -> Step {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: usize) -> Step {
        let id = self
            .memo
            .get(&slot)
            .ok_or_else(|| format!("memo slot {slot} is empty"))?;
        self.stack.push(*id);
        Ok(())
    }

    // The few calls that make data.

    fn call(&mut self, callee: Id, arguments: Id) -> Step<Id> {
        let Value::Global(global) = *self.value(callee) else {
            return Err(format!("calling {}", kind(self.value(callee))));
        };
        let Value::Tuple(arguments) = self.value(arguments) else {
            return Err("calling with arguments that are not a tuple".to_owned());
        };
        let arguments = arguments.clone();
        match global {
            Global::OrderedDict => {
                let items = match arguments.first() {
                    None => Vec::new(),
                    Some(&list) => self.pairs_of_list(list)?,
                };
                self.count_copied(items.len())?;
                self.make(Value::Dict(items))
            }
            Global::Size => match arguments.first().map(|&id| self.value(id)) {
                Some(Value::Tuple(items)) => {
                    let items = items.clone();
                    self.make(Value::Tuple(items))
                }
                _ => Err("torch.Size of something that is not a tuple".to_owned()),
            },
            Global::Device => self.make(Value::Opaque),
            Global::RebuildTensor => {
                let tensor = self.tensor(&arguments)?;
                self.count_copied(2 * tensor.shape.len())?;
                self.make(Value::Tensor(tensor))
            }
            Global::RebuildParameter => match arguments.first() {
                Some(&id) if matches!(self.value(id), Value::Tensor(_)) => Ok(id),
                _ => Err("a parameter that is not made of a tensor".to_owned()),
            },
            Global::Storage(_) | Global::ElementType => {
                Err("calling a storage or element type is not data".to_owned())
            }
        }
    }

    fn count_copied(&mut self, elements: usize) -> Step {
        self.copied = self.copied.saturating_add(elements);
        if self.copied > MAX_COPIED {
            return Err(format!("more than {MAX_COPIED} copied elements"));
        }
        Ok(())
    }

    fn pairs_of_list(&self, list: Id) -> Step<Vec<(Id, Id)>> {
        let problem =
            || "collections.OrderedDict of something that is not a list of pairs".to_owned();
        let Value::List(items) = self.value(list) else {
            return Err(problem());
        };
        let pair = |&item: &Id| match self.value(item) {
            Value::Tuple(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            Value::List(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => Err(problem()),
        };
        items.iter().map(pair).collect()
    }

    fn tensor(&self, arguments: &[Id]) -> Step<Tensor> {
        // storage, offset, size, stride, requires_grad, backward_hooks[, metadata]
        let &[storage, offset, shape, strides, ..] = arguments else {
            return Err(format!(
                "a tensor of {} arguments, expected 6",
                arguments.len()
            ));
        };
        let Value::Storage {
            dtype,
            key,
            elements,
        } = self.value(storage)
        else {
            return Err("a tensor without a storage".to_owned());
        };
        let shape = self.sizes(shape)?;
        let strides = self.sizes(strides)?;
        if shape.len() != strides.len() {
            return Err(format!(
                "a tensor of {} sizes and {} strides",
                shape.len(),
                strides.len()
            ));
        }
        Ok(Tensor {
            dtype: *dtype,
            key: key.clone(),
            storage_elements: *elements,
            offset: self.size(offset)?,
            shape,
            strides,
        })
    }

    fn size(&self, id: Id) -> Step<usize> {
        match self.value(id) {
            Value::Int(value) => usize::try_from(*value)
                .map_err(|_| format!("a tensor size, stride or offset of {value}")),
            other => Err(format!("a tensor size that is {}", kind(other))),
        }
    }

    fn sizes(&self, id: Id) -> Step<Rc<[usize]>> {
        match self.value(id) {
            Value::Tuple(items) if items.len() <= 64 => {
                items.iter().map(|&item| self.size(item)).collect()
            }
            Value::Tuple(items) => Err(format!("a tensor of {} dimensions", items.len())),
            other => Err(format!("a tensor shape that is {}", kind(other))),
        }
    }

    /// `BUILD` sets attributes; on dicts these carry nothing we read (`_metadata` of a state dict).
    fn build(&mut self) -> Step {
        let state = self.pop()?;
        let target = self.top()?;
        match (self.value(target), self.value(state)) {
            (Value::Dict(_), Value::Dict(_)) => Ok(()),
            (target, _) => Err(format!("setting attributes of {}", kind(target))),
        }
    }

    /// `("storage", class, key, location, elements)`, before 1.6 with a sixth part.
    fn persistent(&mut self) -> Step {
        let id = self.pop()?;
        let Value::Tuple(parts) = self.value(id) else {
            return Err("a persistent id that is not a tuple".to_owned());
        };
        let (parts, view) = match parts.as_ref() {
            // Before 1.6 with what the storage is a part of.
            [parts @ .., view] if parts.len() == 5 => (parts, Some(*view)),
            parts => (parts, None),
        };
        if view.is_some_and(|view| !matches!(self.value(view), Value::None)) {
            return Err("a storage that is a part of another one is not read".to_owned());
        }
        let &[tag, class, key, _location, elements] = parts else {
            return Err(format!(
                "a persistent id of {} parts, expected 5",
                parts.len()
            ));
        };
        let (Value::Text(tag), Value::Global(Global::Storage(dtype)), Value::Text(key)) =
            (self.value(tag), self.value(class), self.value(key))
        else {
            return Err("a persistent id that is not a storage".to_owned());
        };
        if tag.as_ref() != "storage" {
            return Err(format!("a persistent id of kind {:?}", clip(tag)));
        }
        let value = Value::Storage {
            dtype: *dtype,
            key: key.clone(),
            elements: self.size(elements)?,
        };
        self.push(value)
    }
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a key without a value".to_owned());
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

fn refuse(opcode: u8) -> String {
    let name = match opcode {
        b'i' => "INST",
        b'o' => "OBJ",
        0x92 => "NEWOBJ_EX",
        0x82..=0x84 => "EXT",
        b'P' => "PERSID",
        0x91 => "FROZENSET",
        0x96 => "BYTEARRAY8",
        0x97 | 0x98 => "BUFFER",
        b'I' | b'L' | b'F' | b'S' | b'V' | b'p' | b'g' => "text opcode of protocol 0",
        _ => "unknown",
    };
    format!("opcode 0x{opcode:02x} ({name}) is not data that PyTorch writes")
}
