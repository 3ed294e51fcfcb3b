//! `brisk models show`: what one model is, what it honours, and what it knows.

use brisk::options::{Definition, Scope, Support};
use brisk::{
    BoxModel, Found, HubProgress, ImageRequest, KnownPrompts, ModelFolder, OpenSettings, Options,
    Published, ResultKind, TextPrompt, TextRequest, registry,
};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Result, verb};
use crate::{models, output, terminal, text};

/// Tell what a model is, which options it honours, and the prompts that it knows
#[derive(Debug, Args)]
#[command(
    before_help = "For a model in the box, a model's folder, or one in the local cache; nothing is downloaded.\n\
    `brisk inspect` shows its components, `brisk models pull` fetches one."
)]
pub struct ShowArguments {
    /// Name of a model in the box, folder, or OWNER/NAME[@REVISION]
    #[arg(value_name = "ID")]
    id: String,
    /// Print only the prompts that it was trained on, one a line
    #[arg(long, conflicts_with = "json")]
    prompts: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Passes on what is said of the cache; nothing is downloaded that could be shown.
struct Notes;

impl HubProgress for Notes {
    fn note(&self, text: &str) {
        output::note(text);
    }
}

/// Runs the command.
pub fn run(arguments: &ShowArguments) -> Result {
    let id = &arguments.id;
    let found = match find(id) {
        Ok(found) => found,
        Err(failure) => {
            return match registry::published(id).filter(|published| published.id == id) {
                Some(published) if !arguments.prompts => absent(published, arguments.json),
                _ => Err(failure),
            };
        }
    };
    let card = Card::of(found)?;
    if arguments.prompts {
        return match &card.opened.known {
            Some(known) => output::print(&known.prompts().join("\n")),
            None => Err(Failure::failed(format!(
                "{}: there is no {}, which would list the prompts that it was trained on",
                card.folder.label(),
                KnownPrompts::FILE
            ))),
        };
    }
    match arguments.json {
        true => output::print_json(&card.to_json()),
        false => output::print(&card.to_text()),
    }
}

/// The model, without a download.
fn find(id: &str) -> Result<Found> {
    if let Some(model) = BoxModel::named(id) {
        return models::find(Some(model.name), None, ResultKind::Pictures);
    }
    let path = brisk::find_path(id, None, true, &Notes)?;
    if path.is_file() {
        return Err(Failure::failed(format!(
            "{id} is a file, expected a model; `brisk inspect {id}` shows what it holds"
        )));
    }
    Ok(Found {
        name: id.to_owned(),
        folder: ModelFolder::Disk(path),
    })
}

/// A published model that is not in the cache.
fn absent(published: &Published, as_json: bool) -> Result {
    let Published {
        id,
        model,
        pixels,
        note,
        ..
    } = published;
    if as_json {
        return output::print_json(&json!({
            "name": id, "about": model, "pixels": pixels, "note": note, "cached": false,
        }));
    }
    let comma = if note.is_empty() { "" } else { ", " };
    output::print(&format!(
        "{id}: {model}, {pixels} px{comma}{note}\n  not in the local cache; `brisk models pull {id}` \
         fetches it\n  licence: {}\n",
        page(id)
    ))
}

/// A model's page on the hub.
fn page(id: &str) -> String {
    let name = id.split('@').next().unwrap_or(id);
    format!("see https://huggingface.co/{name}")
}

/// Facts by their names, in the order in which they are told.
type Facts = Vec<(&'static str, String)>;

/// What a model tells once it is open.
struct Opened {
    kind: ResultKind,
    support: &'static Support,
    facts: Facts,
    /// What holds where an option is not given, as the plan of an empty request has it.
    defaults: Map<String, Value>,
    known: Option<KnownPrompts>,
}

fn open_pictures(folder: &ModelFolder, settings: &OpenSettings) -> Result<Opened> {
    let model = registry::open_image(folder, settings)?;
    let (width, height) = model.usual_size();
    let mut facts = vec![("draws", format!("{width} × {height} pixels"))];
    let mut defaults = Map::new();
    // A model that needs more than a prompt, or more memory than is free, still has its options.
    if let Ok(plan) = model.plan(&ImageRequest::new(model.example_prompt())) {
        defaults.extend(plan.settings.clone());
        if let Some(steps) = plan.known_steps() {
            defaults.insert("steps".to_owned(), steps.into());
        }
        if let Some(most) = plan.memory.iter().map(|stage| stage.needed).max() {
            facts.push(("memory", format!("about {}", text::bytes(most))));
        }
    }
    defaults.insert("width".to_owned(), width.into());
    defaults.insert("height".to_owned(), height.into());
    Ok(Opened {
        kind: ResultKind::Pictures,
        support: model.support(),
        facts,
        defaults,
        known: model.known_prompts().cloned(),
    })
}

fn open_masks(folder: &ModelFolder, settings: &OpenSettings) -> Result<Opened> {
    let model = registry::open_masks(folder, settings)?;
    Ok(Opened {
        kind: ResultKind::Masks,
        support: model.support(),
        facts: vec![(
            "sees",
            format!("pictures in a frame of {0} × {0} pixels", model.frame()),
        )],
        defaults: Map::new(),
        known: None,
    })
}

fn open_video(folder: &ModelFolder, settings: &OpenSettings) -> Result<Opened> {
    let model = registry::open_video(folder, settings)?;
    let from = match model.needs_image() {
        true => "clips that begin with a picture",
        false => "clips from text alone",
    };
    Ok(Opened {
        kind: ResultKind::Clips,
        support: model.support(),
        facts: vec![("makes", from.to_owned())],
        defaults: Map::new(),
        known: None,
    })
}

fn open_text(folder: &ModelFolder, settings: &OpenSettings) -> Result<Opened> {
    let model = registry::open_text(folder, settings)?;
    let writes = match model.has_chat_template() {
        true => "answers to questions (it has a chat template)",
        false => "continuations (it has no chat template)",
    };
    let request = TextRequest::of(vec![TextPrompt::Tokens(vec![0])]);
    let planned = model.plan(&request);
    Ok(Opened {
        kind: ResultKind::Text,
        support: model.support(),
        facts: vec![
            ("writes", writes.to_owned()),
            ("context", format!("{} tokens", model.context())),
            ("vocabulary", format!("{} tokens", model.vocabulary_size())),
        ],
        defaults: planned.map(|plan| plan.settings).unwrap_or_default(),
        known: model.known_prompts().cloned(),
    })
}

/// What is told of a model.
struct Card {
    name: String,
    about: String,
    folder: ModelFolder,
    bytes: u64,
    facts: Facts,
    opened: Opened,
    /// What it tells when it is opened for text, where it gives pictures too.
    also: Option<Opened>,
}

impl Opened {
    /// What holds where an option is not given; empty where nothing does.
    fn default_of(&self, option: &Definition, in_words: &str) -> String {
        match self.defaults.get(&option.field_name()) {
            None | Some(Value::Null) => in_words.to_owned(),
            Some(Value::String(word)) => word.clone(),
            Some(value) => value.to_string(),
        }
    }

    fn options(&self) -> impl Iterator<Item = (&'static Definition, String)> {
        self.support.honoured().map(|honoured| {
            let default = self.default_of(honoured.option, honoured.default);
            (honoured.option, default)
        })
    }

    fn options_json(&self) -> Vec<Value> {
        let one = |(option, default): (&Definition, String)| {
            json!({
                "name": option.name, "default": default, "help": option.help,
                "when": match option.scope { Scope::Open => "open", Scope::Request => "request" },
            })
        };
        self.options().map(one).collect()
    }

    fn options_text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .options()
            .map(|(option, default)| {
                let flag = format!("  --{} {}", option.name, option.placeholder);
                vec![flag.trim_end().to_owned(), default, option.help.to_owned()]
            })
            .collect();
        text::table(&rows)
    }
}

impl Card {
    fn of(found: Found) -> Result<Self> {
        let Found { name, folder } = found;
        let Some(family) = registry::family_of(&folder, &Options::new()) else {
            return Err(Failure::failed(format!(
                "{}: not a model that brisk draws or writes with; `brisk inspect {name}` shows what it holds",
                folder.label()
            )));
        };
        let settings = OpenSettings {
            plan_only: true,
            ..models::settings(Options::new())
        };
        let (opened, also) = match (family.image, family.text) {
            (Some(_), Some(_)) => (
                open_pictures(&folder, &settings)?,
                Some(open_text(&folder, &settings)?),
            ),
            (Some(_), None) => (open_pictures(&folder, &settings)?, None),
            (None, None) if family.video.is_some() => (open_video(&folder, &settings)?, None),
            (None, None) => (open_masks(&folder, &settings)?, None),
            _ => (open_text(&folder, &settings)?, None),
        };
        let boxed = BoxModel::named(&name);
        let published = registry::published(&folder.label());
        let files = folder.list();
        let bytes = files.iter().filter_map(|file| folder.size(file)).sum();
        let about = match (boxed, published) {
            (Some(model), _) => model.about,
            (None, Some(published)) => published.model,
            (None, None) => family.about,
        };
        let place = match boxed {
            Some(_) => "in the program itself".to_owned(),
            None => folder.label(),
        };
        let mut facts = vec![
            ("where", place),
            (
                "size",
                format!("{} in {} files", text::bytes(bytes), files.len()),
            ),
        ];
        match boxed {
            Some(model) => {
                facts.push(("licence", model.licence.to_owned()));
                facts.push(("trained on", model.data.to_owned()));
            }
            None => facts.push(("licence", licence(&folder, &name))),
        }
        if let Some(note) = published
            .map(|published| published.note)
            .filter(|note| !note.is_empty())
        {
            facts.push(("note", note.to_owned()));
        }
        for opened in [Some(&opened), also.as_ref()].into_iter().flatten() {
            facts.extend(opened.facts.iter().cloned());
        }
        let command = |opened: &Opened| format!("brisk {} --model {name} …", verb(opened.kind));
        let commands: Vec<String> = [Some(&opened), also.as_ref()]
            .into_iter()
            .flatten()
            .map(command)
            .collect();
        facts.push(("command", commands.join(", ")));
        Ok(Self {
            about: about.to_owned(),
            name,
            folder,
            bytes,
            facts,
            opened,
            also,
        })
    }

    fn to_json(&self) -> Value {
        let facts: Map<String, Value> = self
            .facts
            .iter()
            .map(|(name, fact)| (name.replace(' ', "_"), fact.clone().into()))
            .collect();
        let known = self.opened.known.as_ref();
        let also = self.also.as_ref().map(|opened| {
            json!({
                "gives": opened.kind.name(), "verb": verb(opened.kind), "options": opened.options_json(),
                "defaults": opened.defaults,
            })
        });
        json!({
            "name": self.name, "about": self.about, "cached": true, "also": also, "gives": self.opened.kind.name(),
            "verb": verb(self.opened.kind), "bytes": self.bytes, "facts": facts,
            "files": self.folder.list(), "options": self.opened.options_json(), "defaults": self.opened.defaults,
            "prompts": known.map(KnownPrompts::prompts),
            "words": known.map(|known| known.words().collect::<Vec<_>>()),
        })
    }

    fn to_text(&self) -> String {
        let mut out = format!("{}: {}\n", self.name, self.about);
        let width = terminal::stdout_columns().unwrap_or(100).clamp(40, 100);
        for (name, fact) in &self.facts {
            out.push_str(&wrapped(&format!("  {name:<12}"), fact, width));
        }
        for opened in [Some(&self.opened), self.also.as_ref()]
            .into_iter()
            .flatten()
        {
            let of = match self.also {
                Some(_) => format!(" of brisk {}", verb(opened.kind)),
                None => String::new(),
            };
            out.push_str(&format!("\nOptions{of}, with what holds without them:\n"));
            out.push_str(&opened.options_text());
        }
        if let Some(known) = &self.opened.known {
            out.push_str(&format!(
                "\nPrompts that it was trained on ({}, with {} words in them and in keywords):\n",
                known.prompts().len(),
                known.words().count()
            ));
            // Questions take a line each, names stand side by side.
            if known.prompts().iter().any(|prompt| prompt.len() > 80) {
                for prompt in known.prompts() {
                    out.push_str(&wrapped("  ", prompt, width));
                }
            } else {
                out.push_str(&wrapped("  ", &known.prompts().join(", "), width));
            }
        }
        out
    }
}

/// The licence that a model's README states for the hub, else where to look.
fn licence(folder: &ModelFolder, name: &str) -> String {
    let stated = folder
        .read_text("README.md")
        .ok()
        .and_then(|readme| stated_licence(&readme));
    match (stated, folder) {
        (Some(stated), _) => stated,
        (None, ModelFolder::Disk(path)) if path.to_str() != Some(name) => page(name),
        _ => "the folder does not say".to_owned(),
    }
}

/// `license_name` or `license` in the first lines of a README, between two lines of three dashes.
fn stated_licence(readme: &str) -> Option<String> {
    let (header, _) = readme.strip_prefix("---\n")?.split_once("\n---")?;
    let value = |key: &str| {
        let line = header.lines().find_map(|line| line.strip_prefix(key))?;
        let value = line.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    value("license_name:").or_else(|| value("license:"))
}

/// A text behind `first`, in lines of at most `width` characters that begin at the same column.
fn wrapped(first: &str, long: &str, width: usize) -> String {
    let margin = first.chars().count();
    let mut out = first.to_owned();
    let mut column = margin;
    for word in text::shown_within(long, usize::MAX).split_whitespace() {
        let length = word.chars().count();
        if column > margin && column + length > width {
            out.push('\n');
            out.push_str(&" ".repeat(margin));
            column = margin;
        }
        if column > margin {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_at_one_column() {
        assert_eq!(
            wrapped("a: ", "one two three", 11),
            "a: one two\n   three\n"
        );
        assert_eq!(
            wrapped("a: ", "long\u{1b}[1m word", 4),
            "a: long\\u{1b}[1m\n   word\n"
        );
    }

    #[test]
    fn a_readme_states_its_licence() {
        let readme = "---\nlicense: other\nlicense_name: \"nscl-v1\"\n---\n# x\n";
        assert_eq!(stated_licence(readme).as_deref(), Some("nscl-v1"));
        assert_eq!(
            stated_licence("---\nlicense: mit\n---").as_deref(),
            Some("mit")
        );
        assert_eq!(stated_licence("# x\nlicense: mit\n"), None);
    }
}
