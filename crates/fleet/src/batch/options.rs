//! What an operator says of all requests of a file.

use brisk_server::fields::Endpoint;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What holds for all requests of a file that do not say it themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Args)]
pub struct BatchOptions {
    /// Where requests go that name no url: /v1/images/generations (default), /v1/chat/completions …
    #[arg(long, value_name = "PATH", value_parser = endpoint)]
    pub url: Option<String>,

    /// A field of every request that does not give it: --set steps=2 --set size=512x512
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = field)]
    pub set: Vec<(String, Value)>,
}

impl BatchOptions {
    /// Where requests go that name no url.
    pub fn endpoint(&self) -> Endpoint {
        let named = |url: &str| Endpoint::ALL.into_iter().find(|known| known.path() == url);
        self.url
            .as_deref()
            .and_then(named)
            .unwrap_or(Endpoint::Generations)
    }

    /// Adds the fields that a body does not give.
    pub fn complete(&self, body: &mut Map<String, Value>) {
        for (name, value) in &self.set {
            if !body.contains_key(name) {
                body.insert(name.clone(), value.clone());
            }
        }
    }

    /// The same text for the same options, in whatever order they were given.
    pub fn canonical(&self) -> String {
        let mut set = self.set.clone();
        set.sort_by(|a, b| a.0.cmp(&b.0));
        let set: Vec<Value> = set
            .into_iter()
            .map(|(name, value)| serde_json::json!([name, value]))
            .collect();
        serde_json::json!([self.endpoint().path(), set]).to_string()
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    let known = Endpoint::ALL.map(Endpoint::path);
    match known.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "there is no {text}; there are {}",
            known.join(", ")
        )),
    }
}

/// `name=value`: JSON, or else a text.
fn field(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("{text:?}: expected FIELD=VALUE"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

/// One of several parts of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 1.
    pub number: usize,
    /// Of how many.
    pub of: usize,
}

impl Shard {
    /// The whole.
    pub const WHOLE: Self = Self { number: 1, of: 1 };

    /// Whether the request at a place, from 0, belongs to it.
    pub fn has(self, place: usize) -> bool {
        place % self.of == self.number - 1
    }

    /// What is added to the names of its reports.
    pub fn suffix(self) -> String {
        match self.of {
            1 => String::new(),
            _ => format!("-{}-of-{}", self.number, self.of),
        }
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no shard; expected i/n with i from 1 to n, such as 3/16");
        let (number, of) = text.split_once('/').ok_or_else(wrong)?;
        let read = |text: &str| text.parse::<usize>().map_err(|_| wrong());
        let shard = Self {
            number: read(number)?,
            of: read(of)?,
        };
        match (1..=shard.of).contains(&shard.number) {
            true => Ok(shard),
            false => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_a_file_out() {
        let shard: Shard = "2/3".parse().unwrap();
        let of: Vec<usize> = (0..8).filter(|place| shard.has(*place)).collect();
        assert_eq!(of, [1, 4, 7]);
        assert_eq!(shard.suffix(), "-2-of-3");
        for wrong in ["", "0/3", "4/3", "1", "a/b", "-1/2", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_order_of_options_does_not_count() {
        let of = |set: &[&str]| BatchOptions {
            url: None,
            set: set.iter().map(|text| field(text).unwrap()).collect(),
        };
        assert_eq!(
            of(&["steps=2", "size=64x64"]).canonical(),
            of(&["size=64x64", "steps=2"]).canonical()
        );
        assert_ne!(of(&["steps=2"]).canonical(), of(&["steps=3"]).canonical());
        let mut body = Map::new();
        body.insert("steps".to_owned(), 4.into());
        of(&["steps=2", "size=64x64"]).complete(&mut body);
        assert_eq!(
            Value::Object(body),
            serde_json::json!({"steps": 4, "size": "64x64"})
        );
        assert!(field("steps").is_err() && field("=2").is_err());
        assert!(endpoint("/v1/nothing").is_err());
    }
}
