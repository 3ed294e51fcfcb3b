//! Fields of request bodies: what an endpoint takes beside what its models honour, read into options.
//!
//! Fields are of three classes. [`Class::Own`] and [`Class::Option`] are honoured; [`Class::Inert`] ones are
//! OpenAI's that mean nothing here, taken only with a value that changes nothing; everything else is refused
//! with the nearest known name. Options come from the families' definitions, so that a new one is a field
//! at once. `null` stands for an absent field.

mod own;
mod picture;
mod room;
mod schema;
mod value;

use std::sync::OnceLock;

use brisk::options::{Definition, Kind, Options, Scope};
use brisk::{ResultKind, registry};
use serde_json::{Map, Value};

pub use own::{Accepts, Inert, Own};
#[cfg(test)]
pub use picture::claiming;
pub use picture::{
    MAX_PICTURE_BYTES, MAX_PIXELS, PictureFile, PictureRoom, from_data_url, room_for,
};
pub use room::Taken;
pub use schema::schema;
pub use value::MAX_SEED;

use crate::error::{ApiError, Result};

/// What has a body of its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/images/generations`.
    Generations,
    /// `/v1/images/edits`.
    Edits,
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// `/brisk/v1/segment`.
    Segment,
    /// `/v1/videos`.
    Videos,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Generations,
        Self::Edits,
        Self::Chat,
        Self::Completions,
        Self::Segment,
        Self::Videos,
    ];

    /// What its models give.
    pub fn result(self) -> ResultKind {
        match self {
            Self::Generations | Self::Edits => ResultKind::Pictures,
            Self::Chat | Self::Completions => ResultKind::Text,
            Self::Segment => ResultKind::Masks,
            Self::Videos => ResultKind::Clips,
        }
    }

    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Self::Generations => "/v1/images/generations",
            Self::Edits => "/v1/images/edits",
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Segment => "/brisk/v1/segment",
            Self::Videos => "/v1/videos",
        }
    }

    /// What jobs and metrics call its requests.
    pub fn job_kind(self) -> &'static str {
        match self {
            Self::Generations => "image",
            Self::Edits => "edit",
            Self::Chat => "text",
            Self::Completions => "completion",
            Self::Segment => "masks",
            Self::Videos => "video",
        }
    }

    /// Whether its reply waits for the result. Where it does not, it tells of a job that has begun.
    pub fn waits(self) -> bool {
        self != Self::Videos
    }

    /// The table of its fields.
    pub fn table(self) -> &'static Table {
        static TABLES: OnceLock<[Table; Endpoint::ALL.len()]> = OnceLock::new();
        &TABLES.get_or_init(|| Self::ALL.map(Table::of))[self as usize]
    }
}

/// What becomes of a field.
#[derive(Debug, Clone, Copy)]
pub enum Class {
    /// The server's own.
    Own(&'static Own),
    /// An option of models, which refuse it where they do not honour it.
    Option(&'static Definition),
    /// OpenAI's, without a meaning here.
    Inert(&'static Inert),
}

/// One field.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Other names that clients use.
    pub aliases: Vec<String>,
    /// What becomes of it.
    pub class: Class,
}

/// The fields of an endpoint.
#[derive(Debug)]
pub struct Table {
    endpoint: Endpoint,
    fields: Vec<Field>,
}

/// A body that was read: every field is known and of its type.
#[derive(Debug, Default)]
pub struct Given {
    /// The server's own fields, by name.
    pub own: Map<String, Value>,
    /// Options of models, without pictures.
    pub options: Options,
    /// Options that are pictures.
    pub pictures: Vec<(&'static Definition, PictureFile)>,
}

impl Given {
    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.own.get(name)?.as_str()
    }

    /// A whole number.
    pub fn whole(&self, name: &str) -> Option<usize> {
        usize::try_from(self.own.get(name)?.as_u64()?).ok()
    }

    /// On or off.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.own.get(name)?.as_bool()
    }
}

/// The field under which an option is known.
pub fn field_of_option(option: &str) -> String {
    match option {
        "gen-length" => "max_tokens".to_owned(),
        "init-image" => "image".to_owned(),
        "images" => "n".to_owned(),
        // OpenAI's name of a clip's first frame.
        "image" => "input_reference".to_owned(),
        other => other.replace('-', "_"),
    }
}

/// Whether an option of models can come with a request over HTTP as a field of its own.
///
/// Files of the server cannot be named, and some have a field of the server's instead.
fn is_field(option: &Definition, endpoint: Endpoint) -> bool {
    let named = !matches!(
        option.kind,
        Kind::Latents(_)
            | Kind::ClipLatents(_)
            | Kind::Codes
            | Kind::Path
            | Kind::Paths
            | Kind::Model
            | Kind::Pictures
            | Kind::Clip
    );
    let of_edits = option.needs == Some("init-image");
    let own = [
        "images",
        "gen-length",
        "preview-interval",
        "previews",
        "init-image",
        // Each picture of a request is one that could be asked for alone.
        "one-generator",
        // A list, not the text of a file.
        "boxes",
    ];
    named
        && option.scope == Scope::Request
        && !option.instead_of_prompt
        && !own.contains(&option.name)
        && (!of_edits || endpoint == Endpoint::Edits)
}

/// Names of options that clients of other programs use.
const OTHER_NAMES: [(&str, &str); 3] = [
    ("image", "image"),
    ("steps", "num_inference_steps"),
    ("guidance", "guidance_scale"),
];

impl Table {
    fn of(endpoint: Endpoint) -> Self {
        let own = own::OWN
            .iter()
            .filter(|own| own.endpoints.contains(&endpoint))
            .map(|own| Field {
                name: own.name.to_owned(),
                aliases: own.aliases.iter().map(|name| (*name).to_owned()).collect(),
                class: Class::Own(own),
            });
        let options = registry::options(endpoint.result())
            .into_iter()
            .filter(|option| is_field(option, endpoint))
            .map(|option| Field {
                name: field_of_option(option.name),
                aliases: option
                    .aliases
                    .iter()
                    .map(|name| name.replace('-', "_"))
                    .chain(
                        OTHER_NAMES
                            .iter()
                            .filter(|(name, _)| *name == option.name)
                            .map(|(_, other)| (*other).to_owned()),
                    )
                    .collect(),
                class: Class::Option(option),
            });
        let mut fields: Vec<Field> = own.chain(options).collect();
        for inert in own::INERT {
            let known = fields.iter().any(|field| field.is_named(inert.name));
            if inert.endpoints.contains(&endpoint) && !known {
                fields.push(Field {
                    name: inert.name.to_owned(),
                    aliases: Vec::new(),
                    class: Class::Inert(inert),
                });
            }
        }
        Self { endpoint, fields }
    }

    /// Every field, the server's own first.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// A field by one of its names.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.is_named(name))
    }

    /// Reads a body.
    ///
    /// # Errors
    /// The first field that is unknown, of another type, or of no use here with the value that it has.
    pub fn read(&self, body: Map<String, Value>) -> Result<Given> {
        let mut given = Given::default();
        let mut seen: Vec<(&str, Value)> = Vec::new();
        for (name, value) in body {
            let Some(field) = self.field(&name) else {
                return Err(self.unknown(&name));
            };
            if value.is_null() {
                continue;
            }
            match seen.iter().find(|(known, _)| *known == field.name) {
                Some((_, before)) if *before == value => continue,
                Some(_) => {
                    let problem = format!("is given twice, as `{name}` too, with other values");
                    return Err(ApiError::invalid(&field.name, problem));
                }
                None => seen.push((&field.name, value.clone())),
            }
            match field.class {
                Class::Own(own) => {
                    own.check(&field.name, &value)?;
                    given.own.insert(field.name.clone(), value);
                }
                Class::Option(option) if option.kind == Kind::Picture => {
                    let file = value::picture_of_json(option, &field.name, &value)?;
                    given.pictures.push((option, file));
                }
                Class::Option(option) => {
                    let value = value::of_json(option, &field.name, value)?;
                    given
                        .options
                        .give(option, value)
                        .map_err(|error| ApiError::of_library(&error))?;
                }
                Class::Inert(inert) => inert.check(&value)?,
            }
        }
        for own in self.fields.iter().filter_map(Field::required) {
            if !given.own.contains_key(own) {
                return Err(ApiError::invalid(own, "is missing"));
            }
        }
        Ok(given)
    }

    fn unknown(&self, name: &str) -> ApiError {
        let shown = brisk_store::shown_within(name, 64);
        let names = self
            .fields
            .iter()
            .flat_map(|field| std::iter::once(&field.name).chain(&field.aliases));
        let nearest = names
            .map(|known| (strsim::damerau_levenshtein(known, &shown), known))
            .min_by_key(|(distance, _)| *distance)
            .filter(|(distance, known)| *distance <= known.len().div_ceil(3).min(3));
        let advice = match nearest {
            Some((_, known)) => format!("; did you mean `{known}`?"),
            None => format!(
                "; {} takes what GET /brisk/v1/capabilities lists",
                self.endpoint.path()
            ),
        };
        ApiError::bad(
            "unknown_field",
            shown.clone(),
            format!("`{shown}` is no field of this request{advice}"),
        )
    }
}

impl Field {
    fn is_named(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    fn required(&self) -> Option<&str> {
        match self.class {
            Class::Own(own) if own.required => Some(&self.name),
            _ => None,
        }
    }

    /// Whether it is an option that is a picture.
    pub fn is_picture(&self) -> bool {
        matches!(self.class, Class::Option(option) if option.kind == Kind::Picture)
    }

    /// One line of help.
    pub fn help(&self) -> &'static str {
        match self.class {
            Class::Own(own) => own.help,
            Class::Option(option) => option.help,
            Class::Inert(_) => "accepted for OpenAI's clients; changes nothing",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(endpoint: Endpoint, body: Value) -> Result<Given> {
        let Value::Object(body) = body else {
            panic!("no object")
        };
        endpoint.table().read(body)
    }

    fn refused(endpoint: Endpoint, body: Value) -> (String, String, String) {
        let error = read(endpoint, body).unwrap_err();
        let param = error.param.unwrap_or_default();
        (error.code.to_owned(), param, error.message)
    }

    #[test]
    fn every_option_has_at_most_one_name() {
        for endpoint in Endpoint::ALL {
            let mut names = Vec::new();
            for field in endpoint.table().fields() {
                names.push(&field.name);
                names.extend(&field.aliases);
            }
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{endpoint:?}: {names:?}");
        }
    }

    #[test]
    fn files_of_the_server_cannot_be_named() {
        for name in [
            "latents",
            "codes",
            "lora",
            "vae",
            "quantized_weights",
            "residency",
        ] {
            for endpoint in Endpoint::ALL {
                assert!(endpoint.table().field(name).is_none(), "{name}");
            }
        }
    }

    #[test]
    fn the_nearest_name_is_told() {
        let (code, param, message) =
            refused(Endpoint::Generations, json!({"prompt": "x", "stpes": 4}));
        assert_eq!((&*code, &*param), ("unknown_field", "stpes"));
        assert!(message.contains("did you mean `steps`?"), "{message}");
        let (_, _, message) = refused(Endpoint::Chat, json!({"messages": [], "zzzzzzzzz": 1}));
        assert!(message.contains("capabilities"), "{message}");
    }

    #[test]
    fn what_means_nothing_is_taken_where_it_changes_nothing() {
        let body = json!({"prompt": "x", "quality": "auto", "user": "me", "background": null});
        let given = read(Endpoint::Generations, body).unwrap();
        assert_eq!(given.options.definitions().count(), 0);
        let (code, param, _) = refused(
            Endpoint::Generations,
            json!({"prompt": "x", "quality": "hd"}),
        );
        assert_eq!((&*code, &*param), ("unsupported_option", "quality"));
    }

    #[test]
    fn two_names_of_one_field_must_agree() {
        let body = json!({"prompt": "x", "steps": 4, "num_inference_steps": 4});
        assert!(read(Endpoint::Generations, body).is_ok());
        let body = json!({"prompt": "x", "steps": 4, "num_inference_steps": 5});
        assert_eq!(refused(Endpoint::Generations, body).0, "invalid_value");
    }
}
