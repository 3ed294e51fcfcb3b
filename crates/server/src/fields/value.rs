//! JSON values to values of options.

use brisk::options::{Definition, Kind, Value as OptionValue};
use serde_json::Value;

use super::picture::{self, PictureFile};
use crate::error::{ApiError, Result};

/// The largest seed: what JavaScript keeps exactly.
pub const MAX_SEED: u64 = (1 << 53) - 1;
/// Longest text of an option, in bytes.
const MAX_TEXT: usize = 16 << 10;
/// Most values of a list.
const MAX_LIST: usize = 256;

/// The value of an option that a field gives; of one that is a picture see [`picture_of_json`].
pub(super) fn of_json(option: &Definition, field: &str, value: Value) -> Result<OptionValue> {
    let kind = option.kind;
    check(kind, field, &value)?;
    let numbers = |value: &Value| -> Vec<f64> {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_f64).collect()
    };
    Ok(match (kind, value) {
        (Kind::Flag, Value::Bool(value)) => OptionValue::Flag(value),
        (Kind::Whole(..) | Kind::Seed, value) => OptionValue::Whole(value.as_u64().unwrap_or(0)),
        (Kind::Number(_), value) => OptionValue::Number(value.as_f64().unwrap_or(0.0)),
        (Kind::Numbers(_), value) => OptionValue::Numbers(numbers(&value)),
        (Kind::Wholes, Value::Array(list)) => {
            OptionValue::Wholes(list.iter().filter_map(Value::as_u64).collect())
        }
        // What a command line reads from a file stands in the request itself.
        (Kind::TextFile | Kind::WholeTextFile, Value::String(text)) if text == "none" => {
            OptionValue::Text(String::new())
        }
        (_, Value::String(text)) => OptionValue::Text(text),
        (_, value) => return Err(expected(field, &value, "a value of another type")),
    })
}

/// The picture that a field of an option gives.
pub(super) fn picture_of_json(
    option: &Definition,
    field: &str,
    value: &Value,
) -> Result<PictureFile> {
    check(option.kind, field, value)?;
    let url = value.as_str().unwrap_or_default();
    PictureFile::new(field, picture::from_data_url(field, url)?)
}

/// Refuses a value of another type than `kind`'s, or a plain one out of range.
pub(super) fn check(kind: Kind, field: &str, value: &Value) -> Result<()> {
    let fits = |right: bool, what: &str| match right {
        true => Ok(()),
        false => Err(expected(field, value, what)),
    };
    match kind {
        Kind::Flag => fits(value.is_boolean(), "true or false"),
        Kind::Whole(least, most) => fits(
            value
                .as_u64()
                .is_some_and(|value| (least..=most).contains(&value)),
            &format!("a whole number, {least} to {most}"),
        ),
        Kind::Seed => fits(
            value.as_u64().is_some_and(|seed| seed <= MAX_SEED),
            "a whole number, 0 to 2^53-1",
        ),
        Kind::Number(range) => fits(
            value.as_f64().is_some_and(|value| range.contains(value)),
            &format!("a number in {range}"),
        ),
        Kind::Numbers(_) => fits(
            list(value, |value| value.as_f64().is_some()),
            "a list of numbers",
        ),
        Kind::Wholes => fits(
            list(value, |value| value.as_u64().is_some()),
            "a list of whole numbers",
        ),
        Kind::Choice(words) => fits(
            value.as_str().is_some_and(|word| words.contains(&word)),
            &format!("one of {}", words.join(", ")),
        ),
        Kind::Text | Kind::TextFile | Kind::WholeTextFile => {
            fits(value.is_string(), "a text")?;
            let length = value.as_str().map_or(0, str::len);
            if length > MAX_TEXT {
                let problem = format!("has {length} bytes; at most {MAX_TEXT} are taken");
                return Err(ApiError::invalid(field, problem));
            }
            Ok(())
        }
        Kind::Picture => fits(value.is_string(), "a data URL of a picture"),
        _ => fits(false, "something that cannot come over HTTP"),
    }
}

fn list(value: &Value, each: impl Fn(&Value) -> bool) -> bool {
    let list = value.as_array();
    list.is_some_and(|list| list.len() <= MAX_LIST && list.iter().all(each))
}

fn expected(field: &str, found: &Value, what: &str) -> ApiError {
    let found = found.to_string();
    let shown = brisk_store::shown_within(&found, 64);
    ApiError::invalid(field, format!("{shown} is not {what}"))
}

#[cfg(test)]
mod tests {
    use brisk::keys;
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_strict() {
        let steps = keys::STEPS.definition();
        for value in [
            json!("4"),
            json!(4.5),
            json!(-1),
            json!(true),
            json!([4]),
            json!(0),
        ] {
            let error = of_json(steps, "steps", value).unwrap_err();
            assert_eq!(error.code, "invalid_value");
            assert!(error.message.starts_with("steps: "), "{}", error.message);
        }
        assert!(matches!(
            of_json(steps, "steps", json!(4)),
            Ok(OptionValue::Whole(4))
        ));
        let guidance = keys::GUIDANCE.definition();
        assert!(matches!(
            of_json(guidance, "guidance", json!(4)),
            Ok(OptionValue::Number(4.0))
        ));
        assert!(of_json(guidance, "guidance", json!(1e300)).is_err());
    }

    #[test]
    fn seeds_are_exact_in_every_language() {
        let seed = keys::SEED.definition();
        assert!(of_json(seed, "seed", json!(MAX_SEED)).is_ok());
        for value in [json!(MAX_SEED + 1), json!(-1), json!("random"), json!(1.0)] {
            assert!(of_json(seed, "seed", value).is_err());
        }
    }
}
