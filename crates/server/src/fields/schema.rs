//! Fields as JSON schemas, for the description of the interface and for forms.

use brisk::options::{Definition, Kind, Range};
use serde_json::{Map, Value, json};

use super::own::Shape;
use super::value::MAX_SEED;
use super::{Accepts, Class, Field};

/// The schema of a field's value.
pub fn schema(field: &Field) -> Value {
    let mut schema = match field.class {
        Class::Own(own) => {
            let mut schema = match own.shape {
                Shape::Plain(kind) => of_kind(kind),
                Shape::Parts(text) => serde_json::from_str(text).unwrap_or(Value::Bool(true)),
            };
            let default = own.default.and_then(|text| serde_json::from_str(text).ok());
            if let (Some(default), Value::Object(entries)) = (default, &mut schema) {
                entries.insert("default".to_owned(), default);
            }
            schema
        }
        Class::Option(option) => of_option(option),
        Class::Inert(inert) => match inert.accepts {
            Accepts::Anything => json!({}),
            Accepts::Only(texts) => {
                let values = texts
                    .iter()
                    .filter_map(|text| serde_json::from_str(text).ok());
                json!({"enum": values.collect::<Vec<Value>>()})
            }
        },
    };
    if let Value::Object(entries) = &mut schema {
        entries.insert("description".to_owned(), field.help().into());
    }
    schema
}

fn of_option(option: &Definition) -> Value {
    of_kind(option.kind)
}

fn of_kind(kind: Kind) -> Value {
    match kind {
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Seed => json!({"type": "integer", "minimum": 0, "maximum": MAX_SEED}),
        Kind::Number(range) => number(range),
        Kind::Numbers(range) => json!({"type": "array", "items": number(range)}),
        Kind::Wholes => json!({"type": "array", "items": {"type": "integer", "minimum": 0}}),
        Kind::Choice(words) => json!({"type": "string", "enum": words}),
        Kind::Picture => json!({"type": "string", "format": "uri", "contentEncoding": "base64"}),
        Kind::Pictures => json!({"type": "array", "items": {"type": "string", "format": "uri"}}),
        _ => json!({"type": "string"}),
    }
}

fn number(range: Range) -> Value {
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "number".into());
    if range.least.is_finite() {
        let key = if range.closed {
            "minimum"
        } else {
            "exclusiveMinimum"
        };
        schema.insert(key.to_owned(), range.least.into());
    }
    if range.most.is_finite() {
        schema.insert("maximum".to_owned(), range.most.into());
    }
    Value::Object(schema)
}

#[cfg(test)]
mod tests {
    use super::super::Endpoint;
    use super::*;

    #[test]
    fn every_field_has_a_schema() {
        for endpoint in Endpoint::ALL {
            for field in endpoint.table().fields() {
                let schema = schema(field);
                let told = schema["description"].as_str().unwrap();
                assert!(!told.is_empty(), "{}", field.name);
            }
        }
        let table = Endpoint::Generations.table();
        let steps = schema(table.field("steps").unwrap());
        assert_eq!(steps["type"], "integer");
        let size = schema(table.field("size").unwrap());
        assert_eq!(size["default"], "auto");
        let messages = schema(Endpoint::Chat.table().field("messages").unwrap());
        assert_eq!(messages["type"], "array");
    }
}
