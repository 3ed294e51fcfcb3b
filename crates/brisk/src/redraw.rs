//! A picture's description back into the request that made it.

use brisk_pipelines::options::{Definition, Options, Scope, keys};
use brisk_pipelines::{Error, ImageRequest, Result, ResultKind, registry};
use serde_json::Value;

use crate::REQUEST_KEYWORD;

/// The option whose noise belongs to a place among several pictures.
const ONE_GENERATOR: &str = "one-generator";

/// What a described picture was drawn from.
#[derive(Debug, Clone)]
pub struct Redraw {
    /// Name of the model.
    pub model: String,
    /// Options of opening it.
    pub open: Options,
    /// The request; it draws `index + 1` pictures at least, as the noise of one depends on its place.
    pub request: ImageRequest,
    /// Place of the picture among those of the request.
    pub index: usize,
}

impl Redraw {
    /// Options whose values a description states of every picture, whether the model lets one choose
    /// them or not.
    pub const STATED: [&'static Definition; 4] = [
        keys::WIDTH.definition(),
        keys::HEIGHT.definition(),
        keys::STEPS.definition(),
        keys::SEED.definition(),
    ];
}

/// Reads the description in a PNG file's texts; `label` names the file.
///
/// Fields that no option has (measured values, later versions' additions) are left out.
///
/// # Errors
/// No description, one that is no JSON object with model and prompt, or a value that its option refuses.
pub fn redraw(texts: &[(String, String)], label: &str) -> Result<Redraw> {
    let wrong = |message: &str| Error::folder(label, message);
    let text = texts
        .iter()
        .find(|(keyword, _)| keyword == REQUEST_KEYWORD)
        .map(|(_, text)| text)
        .ok_or_else(|| wrong("does not say how it was drawn; only pictures that brisk drew do"))?;
    let document: Value = serde_json::from_str(text)
        .map_err(|error| wrong(&format!("its description is no JSON: {error}")))?;
    let word = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
    let (Some(model), Some(prompt)) = (word("model"), word("prompt")) else {
        return Err(wrong("its description names no model or no prompt"));
    };
    let whole = |key: &str, default: u64| match document.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .ok_or_else(|| wrong(&format!("its {key} is {value}, expected a whole number"))),
    };
    let index = whole("index", 0)?;
    let count = whole("images", 1)?.max(index.saturating_add(1));
    let fields = document.as_object().cloned().unwrap_or_default();
    let mut options = Options::new();
    for option in registry::options(ResultKind::Pictures) {
        // Angles stand for steps, and a strength for a picture to start from.
        let superseded = match option.name {
            "steps" => fields.contains_key("scm_timesteps"),
            "strength" => !fields.contains_key("init_image"),
            "control-scale" => !fields.contains_key("control_image"),
            "images" => true,
            _ => false,
        };
        let Some(value) = fields.get(&option.field_name()).filter(|_| !superseded) else {
            continue;
        };
        let texts = texts_of(value).ok_or_else(|| {
            let field = option.field_name();
            wrong(&format!(
                "its {field} is {value}, expected a value or a list of values"
            ))
        })?;
        for text in texts {
            options.read_back(option, &text)?;
        }
    }
    let mut request = ImageRequest::new(prompt);
    request.options = options.of_scope(Scope::Request);
    if count > 1 {
        // Versions that did not say drew the noise of all pictures from one seed.
        if let Some(option) = registry::option(ResultKind::Pictures, ONE_GENERATOR)
            && !request.options.has(option)
        {
            request.options.read(option, "true")?;
        }
        let images = keys::IMAGES.definition();
        request.options.read(images, &count.to_string())?;
    }
    Ok(Redraw {
        model,
        open: options.of_scope(Scope::Open),
        request,
        index: index as usize,
    })
}

/// A value as its option reads it: lists of numbers as one text, lists of files one after another. None for what no
/// option is written as.
fn texts_of(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) if list.iter().all(Value::is_number) => {
            let numbers: Vec<String> = list.iter().map(Value::to_string).collect();
            Some(vec![numbers.join(",")])
        }
        Value::Array(list) => {
            let texts = list.iter().map(|text| text.as_str().map(str::to_owned));
            texts.collect()
        }
        Value::Number(_) | Value::Bool(_) => Some(vec![value.to_string()]),
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(document: &str) -> Vec<(String, String)> {
        vec![(REQUEST_KEYWORD.to_owned(), document.to_owned())]
    }

    #[test]
    fn a_description_becomes_its_request() {
        let document = r#"{"version": "9", "model": "m", "prompt": "a fox", "seed": 5, "index": 1, "images": 2,
            "steps": 3, "guidance": 2.5, "pag_scale": 1.5, "pag_layers": [0, 2], "native": true, "angles": [1.0],
            "strength": 0.6, "instruction": "Say it:", "later": {"x": 1}}"#;
        let found = redraw(&texts(document), "x.png").unwrap();
        assert_eq!((found.model.as_str(), found.index), ("m", 1));
        assert_eq!(found.request.prompts, ["a fox"]);
        let options = &found.request.options;
        assert_eq!(options.get(&keys::SEED), Some(5));
        assert_eq!(options.get(&keys::IMAGES), Some(2));
        assert_eq!(options.get(&keys::STRENGTH), None);
        let layers = registry::option(ResultKind::Pictures, "pag-layers").unwrap();
        assert_eq!(options.source(layers), Some("0,2"));
        let field = |name: &str| options.to_json().get(name).cloned();
        assert_eq!(field("one_generator"), Some(true.into()));
        assert_eq!(field("instruction"), Some("Say it:".into()));
        assert_eq!(found.open.definitions().count(), 1);
    }

    /// A text that came from a file stands in the description whole.
    #[test]
    fn texts_of_files_are_no_names_of_files() {
        let document = r#"{"model": "m", "prompt": "x", "instruction": "Say it.\nUser: "}"#;
        let found = redraw(&texts(document), "x.png").unwrap();
        let written = found.request.options.to_json();
        assert_eq!(written["instruction"], "Say it.\nUser: ");
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for (document, word) in [
            (r#"{"model": "m"}"#, "no prompt"),
            ("[", "no JSON"),
            (r#"{"model": "m", "prompt": "x", "steps": 0}"#, "steps"),
        ] {
            let error = redraw(&texts(document), "x.png").unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(redraw(&[], "x.png").is_err());
    }
}
