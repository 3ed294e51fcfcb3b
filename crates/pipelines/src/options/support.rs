//! Which options a model honours, and what to do instead of the others.

use super::{Definition, Options, Scope};
use crate::error::{Error, Result};

/// An option that a model honours.
#[derive(Debug, Clone, Copy)]
pub struct Honoured {
    /// Which.
    pub option: &'static Definition,
    /// What holds where it is not given, in words; empty where nothing does.
    pub default: &'static str,
}

/// What a family of models makes of options.
#[derive(Debug)]
pub struct Support {
    /// Name of the models, for messages.
    pub models: &'static str,
    /// What they honour, in groups that kinds of models may share.
    pub groups: &'static [&'static [Honoured]],
    /// Options that others honour and these refuse, with what to do instead.
    pub refused: &'static [(&'static Definition, &'static str)],
}

impl Support {
    /// What they honour.
    pub fn honoured(&self) -> impl Iterator<Item = &'static Honoured> {
        self.groups.iter().copied().flatten()
    }

    /// Whether an option is honoured.
    pub fn honours(&self, option: &Definition) -> bool {
        self.honoured()
            .any(|honoured| honoured.option.name == option.name)
    }

    /// Checks options of one scope: every one that was given must be honoured, in range, and not alone
    /// where it needs another. `model` names the model for messages.
    ///
    /// # Errors
    /// The first option that fails, with the reason and what to do instead.
    pub fn check(&self, model: &str, scope: Scope, options: &Options) -> Result<()> {
        for definition in options.definitions() {
            if definition.scope != scope {
                continue;
            }
            if !self.honours(definition) {
                return Err(Error::Unsupported {
                    option: definition.name,
                    model: model.to_owned(),
                    reason: self.why_not(definition),
                });
            }
            if let Some(needed) = definition.needs
                && !options.given.contains_key(needed)
            {
                return Err(Error::request(
                    definition.name,
                    format!("has no effect without `{needed}`"),
                ));
            }
        }
        options.check_ranges()
    }

    /// Why an option is not honoured, and what to do instead.
    pub fn why_not(&self, definition: &Definition) -> String {
        let known = self
            .refused
            .iter()
            .find(|(refused, _)| refused.name == definition.name);
        match known {
            Some((_, instead)) => (*instead).to_owned(),
            None => format!("{} has no such option; leave it out", self.models),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;

    static SUPPORT: Support = Support {
        models: "toys",
        groups: &[&[Honoured {
            option: keys::STRENGTH.definition(),
            default: "0.6",
        }]],
        refused: &[(keys::NEGATIVE_PROMPT.definition(), "use fewer words")],
    };

    fn message(options: Options) -> String {
        let checked = SUPPORT.check("toy", Scope::Request, &options);
        checked.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_is_not_honoured_is_refused_even_at_its_default() {
        let options = Options::new().with(&keys::NEGATIVE_PROMPT, String::new());
        assert_eq!(
            message(options),
            "negative-prompt is not available with toy: use fewer words"
        );
        let options = Options::new().with(&keys::STEPS, 20);
        assert!(message(options).contains("toys has no such option"));
        let options = Options::new().with(&keys::STRENGTH, 0.5);
        assert!(message(options).contains("without `init-image`"));
    }
}
