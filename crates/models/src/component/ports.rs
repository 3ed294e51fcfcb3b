//! Named inputs and outputs, and files that are held to them.

use std::collections::BTreeMap;

use brisk_store::{TensorSource, TensorView};

use super::NamedTensors;
use crate::{Error, Result};

/// A named tensor that an entry takes or gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Its name; one that ends in a dot stands for a series with 0, 1, … after it.
    pub name: &'static str,
    /// Its shape in words, outermost first; equal words are equal sizes, except that a word of a series
    /// which ends in `_I` may be another size in each of its tensors.
    pub shape: &'static [&'static str],
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be left out.
    pub optional: bool,
}

/// What a port holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Finite floats of any stored type, read as f32.
    Float,
    /// Integers from 0 to below what the word is, such as a vocabulary.
    Ids(&'static str),
    /// Integers out of a few, negative ones among them, read as f32.
    OneOf(&'static [i64]),
    /// 0 hides, 1 keeps; of any stored type.
    Mask,
    /// One finite value in a tensor of any shape.
    Scalar,
}

impl Port {
    /// A required tensor of floats.
    pub const fn float(name: &'static str, shape: &'static [&'static str]) -> Self {
        Self {
            name,
            shape,
            kind: Kind::Float,
            optional: false,
        }
    }

    /// A required tensor of ids below `limit`, a word.
    pub const fn ids(
        name: &'static str,
        shape: &'static [&'static str],
        limit: &'static str,
    ) -> Self {
        Self {
            kind: Kind::Ids(limit),
            ..Self::float(name, shape)
        }
    }

    /// A required tensor of integers out of `numbers`.
    pub const fn one_of(
        name: &'static str,
        shape: &'static [&'static str],
        numbers: &'static [i64],
    ) -> Self {
        Self {
            kind: Kind::OneOf(numbers),
            ..Self::float(name, shape)
        }
    }

    /// A required mask.
    pub const fn mask(name: &'static str, shape: &'static [&'static str]) -> Self {
        Self {
            kind: Kind::Mask,
            ..Self::float(name, shape)
        }
    }

    /// A required single value.
    pub const fn scalar(name: &'static str) -> Self {
        Self {
            kind: Kind::Scalar,
            ..Self::float(name, &["1"])
        }
    }

    /// The same, not required.
    pub const fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }

    /// Whether it stands for a series.
    pub fn is_series(&self) -> bool {
        self.name.ends_with('.')
    }

    /// The name for people: series as `block_samples.I`, optional ones in brackets.
    pub fn shown(&self) -> String {
        let name = match self.is_series() {
            true => format!("{}I", self.name),
            false => self.name.to_owned(),
        };
        match self.optional {
            true => format!("[{name}]"),
            false => name,
        }
    }

    fn takes(&self, name: &str) -> bool {
        match name.strip_prefix(self.name) {
            Some("") => true,
            Some(index) => self.is_series() && index.parse::<usize>().is_ok(),
            None => false,
        }
    }
}

/// What a configuration says of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// So much.
    Exactly(usize),
    /// A positive multiple of this.
    MultipleOf(usize),
}

/// Reads the tensors that `ports` ask for; `dimension` says what is known of a word, `label` names the
/// file in messages.
///
/// # Errors
/// Tensors that no port takes, that are missing, of another shape than their port or the other tensors
/// ask for, or that hold what they must not; the message names tensor, found and expected.
pub fn read_inputs(
    ports: &[Port],
    dimension: &dyn Fn(&str) -> Option<Dimension>,
    source: &dyn TensorSource,
    label: &str,
) -> Result<NamedTensors> {
    let names = source.names();
    let unknown: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !ports.iter().any(|port| port.takes(name)))
        .collect();
    if !unknown.is_empty() {
        let known: Vec<String> = ports.iter().map(Port::shown).collect();
        return Err(Error::Shape(format!(
            "{label} has tensors that this component does not take: {} (it takes {})",
            unknown.join(", "),
            known.join(", ")
        )));
    }
    let mut reader = Reader {
        label,
        source,
        dimension,
        bound: BTreeMap::new(),
        tensors: NamedTensors::default(),
    };
    for port in ports {
        if port.is_series() {
            let count = names.iter().filter(|name| port.takes(name)).count();
            for index in 0..count {
                reader.read(port, &format!("{}{index}", port.name), &names)?;
            }
        } else if !port.optional || source.info(port.name).is_some() {
            reader.read(port, port.name, &names)?;
        }
    }
    Ok(reader.tensors)
}

struct Reader<'a> {
    label: &'a str,
    source: &'a dyn TensorSource,
    dimension: &'a dyn Fn(&str) -> Option<Dimension>,
    /// Sizes of words, with the tensor that said so first.
    bound: BTreeMap<&'static str, (usize, String)>,
    tensors: NamedTensors,
}

impl Reader<'_> {
    fn wrong(&self, name: &str, problem: &str) -> Error {
        Error::Shape(format!("{}: tensor \"{name}\" {problem}", self.label))
    }

    fn read(&mut self, port: &Port, name: &str, names: &[String]) -> Result<()> {
        let Some(view) = self.source.view(name)? else {
            let held = match names.join(", ") {
                none if none.is_empty() => "no tensors".to_owned(),
                names => names,
            };
            return Err(Error::Shape(format!(
                "{} has no tensor \"{name}\"; it holds {held}",
                self.label
            )));
        };
        if port.kind != Kind::Scalar {
            self.check_shape(port, name, &view.shape)?;
        }
        if view.shape.contains(&0) {
            return Err(self.wrong(name, &format!("is empty (shape {:?})", view.shape)));
        }
        match port.kind {
            Kind::Ids(word) => self.read_ids(word, name, &view),
            Kind::OneOf(numbers) => self.read_one_of(numbers, name, &view),
            Kind::Mask => self.read_mask(name, &view),
            Kind::Float => {
                let values = view.to_f32()?;
                if values.iter().any(|value| !value.is_finite()) {
                    return Err(self.wrong(name, "holds a value that is not finite"));
                }
                self.tensors.insert_floats(name, &view.shape, values)
            }
            Kind::Scalar => match view.to_f32()?[..] {
                [value] if value.is_finite() => self.tensors.insert_floats(name, &[1], vec![value]),
                _ => Err(self.wrong(
                    name,
                    &format!("has shape {:?}, expected one finite value", view.shape),
                )),
            },
        }
    }

    fn check_shape(&mut self, port: &Port, name: &str, found: &[usize]) -> Result<()> {
        if found.len() != port.shape.len() {
            return Err(self.wrong(
                name,
                &format!(
                    "has shape {found:?}, expected {} dimensions: {}",
                    port.shape.len(),
                    self.shown(port)
                ),
            ));
        }
        for (word, size) in port.shape.iter().copied().zip(found.iter().copied()) {
            let problem = match self.known(word) {
                Some(Dimension::Exactly(wanted)) if wanted != size => {
                    let because = match self.bound.get(word) {
                        Some((_, other)) => format!(" ({word} is {wanted} in \"{other}\")"),
                        None => String::new(),
                    };
                    Some(because)
                }
                Some(Dimension::MultipleOf(unit)) if size % unit.max(1) != 0 => {
                    Some(format!(" ({word} is a multiple of {unit})"))
                }
                _ => None,
            };
            if let Some(because) = problem {
                return Err(self.wrong(
                    name,
                    &format!(
                        "has shape {found:?}, expected {}{because}",
                        self.shown(port)
                    ),
                ));
            }
            if !(port.is_series() && word.ends_with("_I")) {
                self.bound
                    .entry(word)
                    .or_insert_with(|| (size, name.to_owned()));
            }
        }
        Ok(())
    }

    /// What a word is by the tensors read so far, the configuration, or its own digits.
    fn known(&self, word: &str) -> Option<Dimension> {
        if let Some((size, _)) = self.bound.get(word) {
            return Some(Dimension::Exactly(*size));
        }
        let literal = || word.parse().ok().map(Dimension::Exactly);
        (self.dimension)(word).or_else(literal)
    }

    fn shown(&self, port: &Port) -> String {
        let words = port.shape.iter().map(|word| match self.known(word) {
            Some(Dimension::Exactly(size)) => size.to_string(),
            _ => (*word).to_owned(),
        });
        format!("[{}]", words.collect::<Vec<_>>().join(", "))
    }

    fn read_ids(&mut self, word: &str, name: &str, view: &TensorView) -> Result<()> {
        let values = view
            .to_i64()
            .map_err(|error| self.wrong(name, &error.to_string()))?;
        let limit = match self.known(word) {
            Some(Dimension::Exactly(limit)) => limit,
            _ => u32::MAX as usize,
        };
        let ids = values.into_iter().map(|id| match u32::try_from(id) {
            Ok(small) if (small as usize) < limit => Ok(small),
            _ => Err(self.wrong(
                name,
                &format!("holds id {id}, outside the vocabulary 0..{limit}"),
            )),
        });
        let ids = ids.collect::<Result<_>>()?;
        self.tensors.insert_ids(name, &view.shape, ids)
    }

    fn read_one_of(&mut self, numbers: &[i64], name: &str, view: &TensorView) -> Result<()> {
        let values = view
            .to_i64()
            .map_err(|error| self.wrong(name, &error.to_string()))?;
        if let Some(value) = values.iter().find(|value| !numbers.contains(value)) {
            return Err(self.wrong(name, &format!("holds {value}, expected one of {numbers:?}")));
        }
        let values = values.into_iter().map(|value| value as f32).collect();
        self.tensors.insert_floats(name, &view.shape, values)
    }

    fn read_mask(&mut self, name: &str, view: &TensorView) -> Result<()> {
        let values = view.to_f32()?;
        if let Some(value) = values.iter().find(|value| **value != 0.0 && **value != 1.0) {
            return Err(self.wrong(
                name,
                &format!("holds {value}, expected 0 (hidden) or 1 (kept)"),
            ));
        }
        self.tensors.insert_floats(name, &view.shape, values)
    }
}

#[cfg(test)]
mod tests {
    use brisk_store::{Dtype, MemorySource};

    use super::*;

    const PORTS: [Port; 7] = [
        Port::float("hidden", &["B", "C", "H"]),
        Port::ids("ids", &["B", "T"], "V").optional(),
        Port::mask("mask", &["B", "T"]).optional(),
        Port::scalar("scale").optional(),
        Port::float("residual.", &["B"]).optional(),
        Port::float("level.", &["B", "n_I"]).optional(),
        Port::one_of("label", &["B"], &[1, 0, -1]).optional(),
    ];

    fn dimension(word: &str) -> Option<Dimension> {
        match word {
            "C" => Some(Dimension::Exactly(2)),
            "H" => Some(Dimension::MultipleOf(3)),
            "V" => Some(Dimension::Exactly(5)),
            _ => None,
        }
    }

    fn floats(name: &str, shape: &[usize], value: f32) -> (String, Dtype, Vec<usize>, Vec<u8>) {
        let data = value.to_le_bytes().repeat(shape.iter().product());
        (name.into(), Dtype::F32, shape.to_vec(), data)
    }

    fn integers(name: &str, shape: &[usize], value: i64) -> (String, Dtype, Vec<usize>, Vec<u8>) {
        let data = value.to_le_bytes().repeat(shape.iter().product());
        (name.into(), Dtype::I64, shape.to_vec(), data)
    }

    fn read(tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>) -> Result<NamedTensors> {
        let source = MemorySource::new(tensors).unwrap();
        read_inputs(&PORTS, &dimension, &source, "in")
    }

    #[test]
    fn what_fits_is_read() {
        let tensors = read(vec![
            floats("hidden", &[1, 2, 6], 0.5),
            integers("ids", &[1, 4], 4),
            integers("mask", &[1, 4], 1),
            floats("scale", &[], 2.0),
            floats("residual.0", &[1], 1.0),
            floats("residual.1", &[1], 1.0),
            floats("level.0", &[1, 1], 1.0),
            floats("level.1", &[1, 4], 1.0),
            integers("label", &[1], -1),
        ])
        .unwrap();
        assert_eq!(tensors.series("level.").len(), 2);
        let label = tensors.required("label").unwrap().to_vec1::<f32>();
        assert_eq!(label.unwrap(), [-1.0]);
        assert_eq!(tensors.ids("ids").unwrap(), ([1, 4], vec![4; 4]));
        assert_eq!(tensors.mask("mask").unwrap(), Some(vec![vec![true; 4]]));
        assert_eq!(tensors.scalar("scale").unwrap(), Some(2.0));
        assert_eq!(tensors.series("residual.").len(), 2);
    }

    #[test]
    fn what_does_not_fit_is_named_with_found_and_expected() {
        let hidden = || floats("hidden", &[1, 2, 6], 0.5);
        for (tensors, words) in [
            (vec![], ["\"hidden\"", "no tensors"]),
            (
                vec![hidden(), floats("other", &[1], 0.0)],
                ["other", "residual.I"],
            ),
            (
                vec![floats("hidden", &[1, 2], 0.0)],
                ["3 dimensions", "[B, 2, H]"],
            ),
            (
                vec![floats("hidden", &[1, 4, 6], 0.0)],
                ["[1, 4, 6]", "[1, 2, H]"],
            ),
            (
                vec![floats("hidden", &[1, 2, 5], 0.0)],
                ["[1, 2, 5]", "multiple of 3"],
            ),
            (
                vec![floats("hidden", &[1, 2, 0], 0.0)],
                ["empty", "[1, 2, 0]"],
            ),
            (
                vec![floats("hidden", &[1, 2, 3], f32::NAN)],
                ["hidden", "finite"],
            ),
            (
                vec![hidden(), integers("ids", &[2, 4], 1)],
                ["[2, 4]", "B is 1 in \"hidden\""],
            ),
            (
                vec![hidden(), integers("ids", &[1, 1], 5)],
                ["id 5", "0..5"],
            ),
            (
                vec![hidden(), integers("ids", &[1, 1], -1)],
                ["id -1", "0..5"],
            ),
            (
                vec![hidden(), floats("ids", &[1, 1], 1.0)],
                ["ids", "integers"],
            ),
            (
                vec![hidden(), integers("label", &[1], 2)],
                ["holds 2", "[1, 0, -1]"],
            ),
            (
                vec![hidden(), integers("mask", &[1, 1], 2)],
                ["holds 2", "0 (hidden)"],
            ),
            (
                vec![hidden(), floats("scale", &[2], 2.0)],
                ["scale", "one finite"],
            ),
            (
                vec![hidden(), floats("residual.1", &[1], 2.0)],
                ["\"residual.0\"", "residual.1"],
            ),
        ] {
            let message = read(tensors).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "no {word:?} in {message}");
            }
        }
    }
}
