//! Whether a run may go on with a recipe that is not quite the one it was begun with.

use serde_json::Value;

/// Keys that may change between restarts, since they don't change what a step does, or, as the length of
/// the run, only which rate it has.
const FREE_KEYS: [&str; 17] = [
    "steps",
    "prolong",
    "max_minutes",
    "log_every",
    "checkpoint_every",
    "eval_every",
    "eval_pictures",
    "eval_problems",
    "eval_scenes",
    "eval_words",
    "final_scenes",
    "final_words",
    "sample_every",
    "sample_prompts",
    "sample_steps",
    "guidance",
    "name",
];
/// Differences that a message lists.
const LISTED: usize = 6;

/// Why a run with the recipe `old` cannot go on with `new`: what differs, and what to do. None where
/// it can.
pub(crate) fn refusal(old: &Value, new: &Value) -> Option<String> {
    let mut found = Vec::new();
    differences(old, new, "", &mut found);
    if found.is_empty() {
        return None;
    }
    let more = found.len().saturating_sub(LISTED);
    found.truncate(LISTED);
    let mut list = found.join("; ");
    if more > 0 {
        list.push_str(&format!("; and {more} more"));
    }
    Some(format!(
        "the recipe has changed: {list}. A run can go on with other {}; for anything else take the old values, start in \
         another folder (--from goes on from a finished model), or remove this folder",
        FREE_KEYS.join(", ")
    ))
}

fn differences(old: &Value, new: &Value, place: &str, found: &mut Vec<String>) {
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else {
        if old != new {
            let was = |value: &Value| match value {
                Value::Null => "not given".to_owned(),
                value => brisk_store::shown(&value.to_string()),
            };
            found.push(format!("{place} was {}, is {}", was(old), was(new)));
        }
        return;
    };
    // Models have keys of their own, which are never free.
    let may_be_free = place.is_empty() || place == "training";
    let keys = before
        .keys()
        .chain(after.keys().filter(|key| !before.contains_key(*key)));
    for key in keys {
        if may_be_free && FREE_KEYS.contains(&key.as_str()) {
            continue;
        }
        let inner = if place.is_empty() {
            key.clone()
        } else {
            format!("{place}.{key}")
        };
        let value =
            |table: &serde_json::Map<String, Value>| table.get(key).cloned().unwrap_or(Value::Null);
        differences(&value(before), &value(after), &inner, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_length_of_a_run_may_change_and_the_rest_is_named() {
        let old = json!({"name": "a", "model": {"name": "x", "d_model": 8}, "training": {"steps": 20, "batch": 4, "clip": 1.0}});
        let mut new = old.clone();
        new["training"]["steps"] = 30.into();
        new["name"] = "b".into();
        assert_eq!(refusal(&old, &new), None);
        new["training"]["batch"] = 8.into();
        new["training"]["clip"] = Value::Null;
        new["model"]["name"] = "y".into();
        new["lengths"] = json!([[1, 2]]);
        let message = refusal(&old, &new).unwrap();
        for part in [
            "training.batch was 4, is 8",
            "training.clip was 1.0, is not given",
            "model.name was \"x\", is \"y\"",
            "lengths was not given, is [[1,2]]",
            "steps, prolong, max_minutes",
            "--from",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
