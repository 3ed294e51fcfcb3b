//! Fields of the server's own, and OpenAI's that mean nothing here.

use brisk::options::Kind;
use serde_json::Value;

use super::Endpoint::{self, Chat, Completions, Edits, Generations, Segment, Videos};
use super::value;
use crate::error::{ApiError, Result};

/// A field of the server's own.
#[derive(Debug)]
pub struct Own {
    /// Its name.
    pub name: &'static str,
    /// Other names of it.
    pub aliases: &'static [&'static str],
    /// What its value is.
    pub shape: Shape,
    /// What holds where it is absent, as JSON.
    pub default: Option<&'static str>,
    /// Whether it must be there.
    pub required: bool,
    /// One line of help.
    pub help: &'static str,
    /// Who takes it.
    pub endpoints: &'static [Endpoint],
}

/// What the value of a field of the server's own is.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A plain value.
    Plain(Kind),
    /// Something made of parts, which whoever uses it reads; as a JSON schema.
    Parts(&'static str),
}

impl Own {
    /// Refuses a value of another type, or one that is out of range.
    pub(super) fn check(&self, field: &str, value: &Value) -> Result<()> {
        match self.shape {
            Shape::Plain(kind) => value::check(kind, field, value),
            Shape::Parts(_) => Ok(()),
        }
    }
}

/// Images of a request, at most.
const MOST_IMAGES: u64 = 256;

const IMAGES: &[Endpoint] = &[Generations, Edits];
const TEXTS: &[Endpoint] = &[Chat, Completions];
/// Those that OpenAI's clients know.
const OPENAI: &[Endpoint] = &[Generations, Edits, Chat, Completions];
const ALL: &[Endpoint] = &Endpoint::ALL;

const fn own(
    name: &'static str,
    endpoints: &'static [Endpoint],
    shape: Shape,
    default: Option<&'static str>,
    help: &'static str,
) -> Own {
    Own {
        name,
        aliases: &[],
        shape,
        default,
        required: false,
        help,
        endpoints,
    }
}

const fn required(mut own: Own) -> Own {
    own.required = true;
    own
}

const fn also(mut own: Own, aliases: &'static [&'static str]) -> Own {
    own.aliases = aliases;
    own
}

const MESSAGES: &str = r#"{"type": "array", "minItems": 1, "maxItems": 256, "items": {"type": "object",
    "required": ["role", "content"], "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"oneOf": [
            {"type": "object", "required": ["type", "text"], "properties": {
                "type": {"const": "text"}, "text": {"type": "string"}}},
            {"type": "object", "required": ["type", "image_url"], "properties": {
                "type": {"const": "image_url"}, "image_url": {"type": "object", "required": ["url"],
                    "properties": {"url": {"type": "string", "format": "uri",
                        "description": "a data URL; nothing is fetched"}}}}}]}}]}}}}"#;
const TEXTS_OR_TEXT: &str = r#"{"oneOf": [{"type": "string"},
    {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 16}]}"#;
const STOPS: &str = r#"{"oneOf": [{"type": "string"},
    {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 4}]}"#;
const STREAM_OPTIONS: &str =
    r#"{"type": "object", "properties": {"include_usage": {"type": "boolean"}}}"#;
const BOXES: &str = r#"{"type": "array", "minItems": 1, "maxItems": 4096, "items": {"oneOf": [
    {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
    {"type": "object", "properties": {"box": {"type": "array"}, "points": {"type": "array"},
        "labels": {"type": "array"}, "name": {"type": "string"}}}]}}"#;
const SECONDS: &str = r#"{"oneOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 3600}, {"type": "string"}]}"#;
const WORDS: &str = r#"{"oneOf": [{"const": "auto"}, {"type": "array", "maxItems": 4096, "items": {"type": "object",
    "properties": {"polygon": {"type": "array"}, "box": {"type": "array"}, "text": {"type": "string"},
        "characters": {"type": "array"}}}}]}"#;
const PICTURES: &str = r#"{"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "object",
    "required": ["image_url"], "properties": {"image_url": {"type": "string", "format": "uri",
        "description": "a data URL; nothing is fetched"}}}}"#;

pub(super) static OWN: &[Own] = &[
    own(
        "model",
        ALL,
        Shape::Plain(Kind::Text),
        None,
        "id of the model; the first of its kind where absent",
    ),
    required(own(
        "prompt",
        IMAGES,
        Shape::Plain(Kind::Text),
        None,
        "what to draw, up to 16 kB",
    )),
    required(own(
        "prompt",
        &[Videos],
        Shape::Plain(Kind::Text),
        None,
        "what happens in the clip, up to 16 kB",
    )),
    own(
        "seconds",
        &[Videos],
        Shape::Parts(SECONDS),
        None,
        "how long the clip lasts: the model's nearest number of frames, at its frame rate or fps",
    ),
    required(own(
        "prompt",
        &[Completions],
        Shape::Parts(TEXTS_OR_TEXT),
        None,
        "a text to continue as it stands, or up to 16",
    )),
    required(own(
        "messages",
        &[Chat],
        Shape::Parts(MESSAGES),
        None,
        "the conversation",
    )),
    also(
        own(
            "images",
            &[Edits],
            Shape::Parts(PICTURES),
            None,
            "the picture to start from, by a data URL",
        ),
        &["image"],
    ),
    also(
        own(
            "images",
            &[Segment],
            Shape::Parts(PICTURES),
            None,
            "the picture to look at, by a data URL",
        ),
        &["image"],
    ),
    own(
        "boxes",
        &[Segment],
        Shape::Parts(BOXES),
        None,
        "many things to find: boxes [left, top, right, bottom], or objects with box, points, labels, name",
    ),
    own(
        "words",
        &[Segment],
        Shape::Parts(WORDS),
        None,
        "words whose characters to find: objects with polygon or box, and text; auto finds them too",
    ),
    own(
        "mask_format",
        &[Segment],
        Shape::Plain(Kind::Choice(&["png", "polygons", "coco"])),
        Some("\"png\""),
        "masks as pictures, as outlines, or as COCO's runs",
    ),
    also(
        own(
            "n",
            &[Generations],
            Shape::Plain(Kind::Whole(1, MOST_IMAGES)),
            Some("1"),
            "pictures; picture i has the seed plus i, and equals one asked for alone with it",
        ),
        &["images", "num_images"],
    ),
    own(
        "n",
        &[Edits],
        Shape::Plain(Kind::Whole(1, MOST_IMAGES)),
        Some("1"),
        "pictures; picture i has the seed plus i, and equals one asked for alone with it",
    ),
    own(
        "n",
        TEXTS,
        Shape::Plain(Kind::Whole(1, MOST_IMAGES)),
        Some("1"),
        "texts of each prompt; more than one needs a temperature",
    ),
    own(
        "size",
        &[Generations, Edits, Videos],
        Shape::Plain(Kind::Text),
        Some("\"auto\""),
        "WIDTHxHEIGHT in pixels, or auto for the model's own",
    ),
    own(
        "response_format",
        IMAGES,
        Shape::Plain(Kind::Choice(&["b64_json", "url"])),
        Some("\"b64_json\""),
        "the picture itself, or a link that lasts ten minutes",
    ),
    own(
        "output_format",
        IMAGES,
        Shape::Plain(Kind::Choice(&["png", "jpeg", "webp"])),
        Some("\"png\""),
        "format of the picture; webp is without loss",
    ),
    own(
        "output_compression",
        IMAGES,
        Shape::Plain(Kind::Whole(0, 100)),
        Some("90"),
        "quality of a jpeg",
    ),
    own(
        "partial_images",
        IMAGES,
        Shape::Plain(Kind::Whole(0, 3)),
        Some("0"),
        "previews of each picture on the way; fewer may come",
    ),
    own(
        "file_metadata",
        IMAGES,
        Shape::Plain(Kind::Flag),
        Some("true"),
        "whether a png says how it was made",
    ),
    own(
        "stream",
        OPENAI,
        Shape::Plain(Kind::Flag),
        Some("false"),
        "send what there is as it comes",
    ),
    also(
        own(
            "max_tokens",
            TEXTS,
            Shape::Plain(Kind::Whole(1, 1 << 20)),
            Some("256"),
            "most tokens of an answer",
        ),
        &["max_completion_tokens", "gen_length"],
    ),
    own(
        "stop",
        TEXTS,
        Shape::Parts(STOPS),
        None,
        "up to four texts before which an answer ends",
    ),
    own(
        "stream_options",
        TEXTS,
        Shape::Parts(STREAM_OPTIONS),
        None,
        "whether a stream ends with what was used",
    ),
    own(
        "canvas",
        TEXTS,
        Shape::Plain(Kind::Flag),
        Some("false"),
        "whether a stream shows the text while it fills",
    ),
    own(
        "suffix",
        &[Completions],
        Shape::Plain(Kind::Text),
        None,
        "what follows the text: max_tokens tokens are filled in between",
    ),
];

/// A field of OpenAI's without a meaning here.
#[derive(Debug)]
pub struct Inert {
    /// Its name.
    pub name: &'static str,
    /// Values that change nothing.
    pub accepts: Accepts,
    /// Who takes it.
    pub endpoints: &'static [Endpoint],
}

/// Values that change nothing.
#[derive(Debug, Clone, Copy)]
pub enum Accepts {
    /// Whatever it is.
    Anything,
    /// One of these, as JSON.
    Only(&'static [&'static str]),
}

const fn inert(name: &'static str, endpoints: &'static [Endpoint], accepts: Accepts) -> Inert {
    Inert {
        name,
        accepts,
        endpoints,
    }
}

pub(super) static INERT: &[Inert] = &[
    inert("user", OPENAI, Accepts::Anything),
    inert("metadata", OPENAI, Accepts::Anything),
    inert("store", OPENAI, Accepts::Only(&["false"])),
    inert("service_tier", OPENAI, Accepts::Only(&["\"auto\""])),
    inert(
        "moderation",
        IMAGES,
        Accepts::Only(&["\"auto\"", "\"low\""]),
    ),
    inert(
        "quality",
        IMAGES,
        Accepts::Only(&["\"auto\"", "\"standard\""]),
    ),
    inert(
        "background",
        IMAGES,
        Accepts::Only(&["\"auto\"", "\"opaque\""]),
    ),
    inert("mask", &[Edits], Accepts::Only(&[])),
    inert("frequency_penalty", TEXTS, Accepts::Only(&["0", "0.0"])),
    inert("presence_penalty", TEXTS, Accepts::Only(&["0", "0.0"])),
    inert("logit_bias", TEXTS, Accepts::Only(&["{}"])),
    inert("logprobs", TEXTS, Accepts::Only(&["false"])),
    inert("tools", &[Chat], Accepts::Only(&["[]"])),
    inert(
        "tool_choice",
        &[Chat],
        Accepts::Only(&["\"none\"", "\"auto\""]),
    ),
    inert(
        "response_format",
        &[Chat],
        Accepts::Only(&[r#"{"type":"text"}"#]),
    ),
    inert("echo", &[Completions], Accepts::Only(&["false"])),
    inert("best_of", &[Completions], Accepts::Only(&["1"])),
];

impl Inert {
    /// Refuses a value that would have to change something.
    pub(super) fn check(&self, value: &Value) -> Result<()> {
        let Accepts::Only(accepted) = self.accepts else {
            return Ok(());
        };
        if accepted.contains(&value.to_string().as_str()) {
            return Ok(());
        }
        let found = value.to_string();
        let instead = match accepted {
            [] => String::new(),
            some => format!(", or give {}", some.join(" or ")),
        };
        Err(ApiError::bad(
            "unsupported_option",
            self.name,
            format!(
                "{}: {} has no effect here; leave it out{instead}",
                self.name,
                brisk_store::shown_within(&found, 64),
            ),
        ))
    }
}
