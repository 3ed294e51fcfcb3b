//! The chat templates of a model: one, or several by name.

use serde_json::Value;

use super::ChatTemplate;
use crate::{Error, Result};

/// The name of the template that is used unless another is asked for.
const DEFAULT: &str = "default";

/// The texts of a model's chat templates, by name.
#[derive(Debug, Clone, Default)]
pub struct ChatTemplates {
    /// Name, text, and the file it is from.
    found: Vec<(String, String, String)>,
}

impl ChatTemplates {
    /// No template.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the text of `chat_template.jinja` (`name` is none) or of a file of
    /// `additional_chat_templates/`; `label` names the file.
    pub fn add_file(&mut self, name: Option<&str>, text: String, label: &str) {
        self.found
            .push((name.unwrap_or(DEFAULT).to_owned(), text, label.to_owned()));
    }

    /// Adds what `chat_template` of `tokenizer_config.json` holds: a text, or a list of
    /// `{"name", "template"}`. Files come before it: where there are any, it is passed over.
    ///
    /// # Errors
    /// A `chat_template` of another form.
    pub fn add_settings(&mut self, settings: &Value, label: &str) -> Result<()> {
        if !self.found.is_empty() {
            return Ok(());
        }
        let bad = |reason: String| Error::Template {
            label: label.to_owned(),
            reason,
        };
        match settings.get("chat_template") {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => self.add_file(None, text.clone(), label),
            Some(Value::Array(list)) => {
                for (place, entry) in list.iter().enumerate() {
                    let text = |key: &str| entry.get(key).and_then(Value::as_str);
                    let (Some(name), Some(template)) = (text("name"), text("template")) else {
                        return Err(bad(format!(
                            "entry {place} of chat_template: expected texts name and template"
                        )));
                    };
                    self.add_file(Some(name), template.to_owned(), label);
                }
            }
            Some(_) => {
                return Err(bad(
                    "chat_template: expected a text or a list of templates".into()
                ));
            }
        }
        Ok(())
    }

    /// The names there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|(name, ..)| name.as_str())
    }

    /// The template of this name, by default the one named `default`, or none where the model has
    /// none at all. `specials` are the special tokens it may name.
    ///
    /// # Errors
    /// No template of this name, no default among several, or one that is no template.
    pub fn open(
        &self,
        name: Option<&str>,
        specials: Vec<(String, String)>,
    ) -> Result<Option<ChatTemplate>> {
        let wanted = name.unwrap_or(DEFAULT);
        // The later one of a name replaces the earlier, as in a dictionary.
        let found = self.found.iter().rev().find(|(name, ..)| name == wanted);
        match found {
            Some((_, text, label)) => ChatTemplate::new(text.clone(), specials, label).map(Some),
            None if self.found.is_empty() && name.is_none() => Ok(None),
            None => {
                let label = self
                    .found
                    .first()
                    .map_or("the model", |(_, _, label)| label);
                let names: Vec<&str> = self.names().collect();
                Err(Error::Template {
                    label: label.to_owned(),
                    reason: format!(
                        "there is no template named {wanted}; there are: {}",
                        if names.is_empty() {
                            "none".to_owned()
                        } else {
                            names.join(", ")
                        }
                    ),
                })
            }
        }
    }
}
