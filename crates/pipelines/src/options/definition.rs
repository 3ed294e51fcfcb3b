//! What is known of an option before any value is given.

use std::marker::PhantomData;

use super::kind::Kind;

/// Where an option has its say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// When a model is opened.
    Open,
    /// In a request.
    Request,
}

/// What options stand under in help texts and forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heading {
    /// What the picture is.
    Picture,
    /// What the clip is.
    Clip,
    /// What the text is.
    Text,
    /// What is looked for in a picture.
    Finding,
    /// How a sampler walks.
    Sampling,
    /// How tokens are decided.
    Decoding,
    /// What a picture gives to the next.
    FromPicture,
    /// Which weights, and how they are kept.
    Model,
    /// Files and memory.
    OutputAndMachine,
}

impl Heading {
    /// The words of it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Picture => "Picture",
            Self::Clip => "Clip",
            Self::Text => "Text",
            Self::Finding => "What to find",
            Self::Sampling => "Sampling",
            Self::Decoding => "Decoding",
            Self::FromPicture => "From a picture",
            Self::Model => "Model",
            Self::OutputAndMachine => "Output and machine",
        }
    }
}

/// One option: the single source for flags, HTTP fields, metadata and documentation.
#[derive(Debug)]
pub struct Definition {
    /// Flag without its dashes; fields of JSON have `_` for `-`.
    pub name: &'static str,
    /// Other names under which people know it.
    pub aliases: &'static [&'static str],
    /// Placeholder of its value.
    pub placeholder: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Where it has its say.
    pub scope: Scope,
    /// What it stands under.
    pub heading: Heading,
    /// Rarely needed: left out of short help.
    pub rare: bool,
    /// An option without which this one has no effect.
    pub needs: Option<&'static str>,
    /// Whether a request with it needs no prompt.
    pub instead_of_prompt: bool,
}

impl Definition {
    /// The name of its JSON field.
    pub fn field_name(&self) -> String {
        self.name.replace('-', "_")
    }
}

/// A [`Definition`] with the Rust type of its value.
#[derive(Debug)]
pub struct Key<T> {
    definition: Definition,
    value: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// A key of a request, under "Sampling", unless said otherwise.
    pub const fn new(
        name: &'static str,
        placeholder: &'static str,
        kind: Kind,
        help: &'static str,
    ) -> Self {
        Self {
            definition: Definition {
                name,
                aliases: &[],
                placeholder,
                help,
                kind,
                scope: Scope::Request,
                heading: Heading::Sampling,
                rare: false,
                needs: None,
                instead_of_prompt: false,
            },
            value: PhantomData,
        }
    }

    /// Also known as.
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.definition.aliases = aliases;
        self
    }

    /// Stands under another heading.
    pub const fn under(mut self, heading: Heading) -> Self {
        self.definition.heading = heading;
        self
    }

    /// Has its say when a model is opened.
    pub const fn on_open(mut self) -> Self {
        self.definition.scope = Scope::Open;
        self.definition.heading = Heading::Model;
        self
    }

    /// Is left out of short help.
    pub const fn rare(mut self) -> Self {
        self.definition.rare = true;
        self
    }

    /// Has no effect without another option.
    pub const fn needs(mut self, other: &'static str) -> Self {
        self.definition.needs = Some(other);
        self
    }

    /// Stands where a prompt would.
    pub const fn instead_of_prompt(mut self) -> Self {
        self.definition.instead_of_prompt = true;
        self
    }

    /// What is known of it.
    pub const fn definition(&'static self) -> &'static Definition {
        &self.definition
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.definition.name
    }
}
