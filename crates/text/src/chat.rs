//! Chat templates: the Jinja text that a model's files carry.

use minijinja::{Environment, ErrorKind, Value, context};

use crate::{Error, Result};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// A chat template, rendered as transformers renders it. It can read what it is given and nothing
/// else, and its work is limited.
pub struct ChatTemplate {
    environment: Environment<'static>,
    specials: Vec<(String, String)>,
    label: String,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChatTemplate({})", self.label)
    }
}

/// Instructions after which a template is given up.
const FUEL: u64 = 5_000_000;

impl ChatTemplate {
    /// Reads a template; `specials` are the special tokens it may name (`bos_token`, …), `label`
    /// the file for messages.
    ///
    /// # Errors
    /// A text that is no template.
    pub fn new(text: String, specials: Vec<(String, String)>, label: &str) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| {
            Err::<Value, _>(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .add_template_owned("chat", text)
            .map_err(|error| failed(label, &error))?;
        Ok(Self {
            environment,
            specials,
            label: label.to_owned(),
        })
    }

    /// The text of a conversation, up to where the assistant answers. `thinking` is passed on as
    /// `enable_thinking` where it is given.
    ///
    /// # Errors
    /// The template fails, or refuses the conversation.
    pub fn render(&self, messages: &[ChatMessage], thinking: Option<bool>) -> Result<String> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|m| context! { role => m.role, content => m.content })
            .collect();
        let mut values: Vec<(String, Value)> = self
            .specials
            .iter()
            .map(|(key, token)| (key.clone(), Value::from(token.as_str())))
            .collect();
        values.push(("messages".to_owned(), Value::from(messages)));
        values.push(("add_generation_prompt".to_owned(), Value::from(true)));
        if let Some(thinking) = thinking {
            values.push(("enable_thinking".to_owned(), Value::from(thinking)));
        }
        let values: Value = values.into_iter().collect();
        self.environment
            .get_template("chat")
            .and_then(|template| template.render(values))
            .map_err(|error| failed(&self.label, &error))
    }
}

fn failed(label: &str, error: &minijinja::Error) -> Error {
    Error::Template {
        label: label.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(content: &str) -> [ChatMessage; 1] {
        [ChatMessage {
            role: "user".into(),
            content: content.into(),
        }]
    }

    #[test]
    fn a_template_sees_turns_and_special_tokens() {
        let text = "{% set loop_messages = messages %}\n{% for message in loop_messages %}\n\
            {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}\n\
            {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}\
            {{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}";
        let specials = vec![("bos_token".to_owned(), "<s>".to_owned())];
        let template = ChatTemplate::new(text.to_owned(), specials, "t").unwrap();
        assert_eq!(
            template.render(&user(" Hi "), None).unwrap(),
            "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        );
    }

    #[test]
    fn python_methods_and_switches_work() {
        let text = "{{ messages[0].content.strip().startswith('a') }}{% if enable_thinking is defined and enable_thinking is false %}!{% endif %}";
        let template = ChatTemplate::new(text.to_owned(), Vec::new(), "t").unwrap();
        let said = |thinking| {
            template
                .render(&user("  ab "), thinking)
                .unwrap()
                .to_lowercase()
        };
        assert_eq!(said(None), "true");
        assert_eq!(said(Some(false)), "true!");
    }

    #[test]
    fn bad_templates_are_errors() {
        let error = ChatTemplate::new("{% for %}".into(), Vec::new(), "some.json").unwrap_err();
        assert!(error.to_string().starts_with("some.json:"), "{error}");
        let render = |text: &str| {
            let template = ChatTemplate::new(text.into(), Vec::new(), "t").unwrap();
            template.render(&user("x"), None).unwrap_err().to_string()
        };
        assert!(render("{{ raise_exception('no system turn') }}").contains("no system turn"));
        let endless =
            "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}";
        assert!(render(endless).contains("fuel"), "{}", render(endless));
    }
}
