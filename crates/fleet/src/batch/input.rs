//! Files of requests: OpenAI's batch format, or a prompt a line.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use brisk_server::engine::{give_seed, shape};
use brisk_server::fields::Endpoint;
use brisk_store::shown_within;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::entry::{Entry, MOST_NAME, is_name};
use super::options::BatchOptions;
use crate::error::{Error, Result};

/// Most bytes of a line: what a request may have over HTTP.
const MOST_LINE: usize = 32 << 20;

/// A file of requests that was read and checked as far as that needs no model. Bodies stay in the file.
#[derive(Debug)]
pub struct Input {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub hash: String,
    /// Its requests, in order.
    pub entries: Vec<Entry>,
    options: BatchOptions,
    lines: Mutex<File>,
    has_objects: bool,
}

/// A line that is no request.
struct Wrong(String);

impl From<String> for Wrong {
    fn from(problem: String) -> Self {
        Self(problem)
    }
}

impl Input {
    /// Reads a file. Where its first line that is not blank begins with a brace, every line is a request in
    /// OpenAI's format, or else a prompt.
    ///
    /// # Errors
    /// A file that cannot be read or has nothing in it; the first line that is no request, with its number,
    /// what was found and what was expected.
    pub fn read(path: &Path, options: &BatchOptions) -> Result<Self> {
        let shown = path.display();
        let failed = |error: std::io::Error| Error::Usage(format!("cannot read {shown}: {error}"));
        let file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::Usage(format!(
                "{shown} is no file; give one with a request or a prompt a line"
            )));
        }
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let (mut hash, mut entries) = (Sha256::new(), Vec::new());
        let (mut start, mut number, mut has_objects) = (0u64, 0usize, None);
        let mut line = Vec::new();
        loop {
            line.clear();
            let most = MOST_LINE as u64 + 1;
            let length = reader
                .by_ref()
                .take(most)
                .read_until(b'\n', &mut line)
                .map_err(failed)?;
            if length == 0 {
                break;
            }
            number += 1;
            hash.update(&line);
            let wrong = |Wrong(problem)| Error::Usage(format!("{shown}, line {number}: {problem}"));
            if length > MOST_LINE {
                let problem = format!("it has more than {MOST_LINE} bytes");
                return Err(wrong(Wrong(problem)));
            }
            let text = text(&line, number).map_err(wrong)?;
            if !text.is_empty() {
                let objects = *has_objects.get_or_insert(text.starts_with('{'));
                let entry = entry(text, objects, number, options).map_err(wrong)?;
                entries.push(Entry {
                    start,
                    length,
                    ..entry
                });
            }
            start += length as u64;
        }
        if entries.is_empty() {
            return Err(Error::Usage(format!(
                "{shown} has no requests; give one with a request or a prompt a line"
            )));
        }
        check_names(&entries).map_err(|problem| Error::Usage(format!("{shown}: {problem}")))?;
        Ok(Self {
            path: path.to_owned(),
            hash: super::hex(&hash.finalize()),
            entries,
            options: options.clone(),
            lines: Mutex::new(reader.into_inner()),
            has_objects: has_objects.unwrap_or(false),
        })
    }

    /// The body of a request, with the fields that hold for all and a seed.
    ///
    /// # Errors
    /// The file changed or went away meanwhile.
    pub fn body(&self, entry: &Entry, batch: &str) -> Result<Map<String, Value>> {
        let shown = self.path.display();
        let mut bytes = vec![0; entry.length];
        let read = {
            let mut file = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(entry.start))
                .and_then(|_| file.read_exact(&mut bytes))
        };
        read.map_err(|error| Error::Failed(format!("cannot read {shown} again: {error}")))?;
        let changed = || Error::Failed(format!("{shown} changed while it was worked on"));
        let text = text(&bytes, entry.line).map_err(|_| changed())?;
        let (_, _, mut body) =
            request(text, self.has_objects, entry.line, &self.options).map_err(|_| changed())?;
        give_seed(entry.endpoint, &mut body, entry.seed(batch));
        Ok(body)
    }
}

/// A line without its end, and a first one without its byte order mark.
fn text(line: &[u8], number: usize) -> Result<&str, Wrong> {
    let text = std::str::from_utf8(line).map_err(|_| "it is no UTF-8".to_owned())?;
    let text = match number {
        1 => text.strip_prefix('\u{feff}').unwrap_or(text),
        _ => text,
    };
    Ok(text.trim())
}

fn entry(text: &str, objects: bool, number: usize, options: &BatchOptions) -> Result<Entry, Wrong> {
    let (name, endpoint, body) = request(text, objects, number, options)?;
    let model = match body.get("model") {
        None | Some(Value::Null) => None,
        Some(Value::String(model)) => Some(model.clone()),
        Some(_) => return Err("body.model: expected a text".to_owned().into()),
    };
    let shape = shape(endpoint, body).map_err(|error| format!("body.{}", error.message))?;
    Ok(Entry {
        name,
        line: number,
        endpoint,
        model,
        files: shape.files,
        ending: shape.ending,
        start: 0,
        length: 0,
    })
}

/// Name, endpoint and body of a line.
fn request(
    text: &str,
    objects: bool,
    number: usize,
    options: &BatchOptions,
) -> Result<(String, Endpoint, Map<String, Value>), Wrong> {
    let (name, endpoint, mut body) = match objects {
        true => object(text, number, options)?,
        false => prompt(text, number, options)?,
    };
    options.complete(&mut body);
    Ok((name, endpoint, body))
}

fn prompt(
    text: &str,
    number: usize,
    options: &BatchOptions,
) -> Result<(String, Endpoint, Map<String, Value>), Wrong> {
    let endpoint = options.endpoint();
    let body = match endpoint {
        Endpoint::Chat => json!({"messages": [{"role": "user", "content": text}]}),
        Endpoint::Generations | Endpoint::Completions | Endpoint::Videos => json!({"prompt": text}),
        Endpoint::Edits | Endpoint::Segment => {
            return Err(format!(
                "--url {} needs a picture with each request; give requests as JSON",
                endpoint.path()
            )
            .into());
        }
    };
    let Value::Object(body) = body else {
        return Err("it is no request".to_owned().into());
    };
    Ok((number.to_string(), endpoint, body))
}

fn object(
    text: &str,
    number: usize,
    options: &BatchOptions,
) -> Result<(String, Endpoint, Map<String, Value>), Wrong> {
    let expected = "expected {\"custom_id\": …, \"method\": \"POST\", \"url\": …, \"body\": {…}}";
    let mut fields = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err(format!("it is no JSON object; {expected}").into()),
        Err(error) => return Err(format!("it is no JSON: {error}; {expected}").into()),
    };
    let name = match fields.remove("custom_id") {
        None | Some(Value::Null) => number.to_string(),
        Some(Value::String(name)) if is_name(&name) => name,
        Some(other) => {
            return Err(format!(
                "custom_id: {} names no file; expected 1 to {MOST_NAME} of A-Z a-z 0-9 . _ -, not \
                 beginning with a dot or a dash",
                shown_within(&other.to_string(), 64)
            )
            .into());
        }
    };
    match fields.remove("method") {
        None | Some(Value::Null) => {}
        Some(Value::String(method)) if method == "POST" => {}
        Some(other) => {
            let found = shown_within(&other.to_string(), 32);
            return Err(format!("method: found {found}; expected \"POST\"").into());
        }
    }
    let endpoint = match fields.remove("url") {
        None | Some(Value::Null) => options.endpoint(),
        Some(url) => {
            let known = Endpoint::ALL.into_iter();
            let mut named = known.filter(|known| url.as_str() == Some(known.path()));
            named.next().ok_or_else(|| {
                let found = shown_within(&url.to_string(), 64);
                let known = Endpoint::ALL.map(Endpoint::path).join(", ");
                format!("url: found {found}; expected one of {known}")
            })?
        }
    };
    let body = match fields.remove("body") {
        Some(Value::Object(body)) => body,
        Some(_) => {
            return Err("body: expected the JSON object of a request"
                .to_owned()
                .into());
        }
        None => return Err(format!("body: is missing; {expected}").into()),
    };
    if let Some((other, _)) = fields.iter().next() {
        let other = shown_within(other, 64);
        return Err(format!("`{other}` is no field of a line; {expected}").into());
    }
    Ok((name, endpoint, body))
}

/// Every name once, and no two files of one name.
fn check_names(entries: &[Entry]) -> Result<(), String> {
    let mut names = HashSet::with_capacity(entries.len());
    for entry in entries {
        if !names.insert(entry.name.as_str()) {
            return Err(format!(
                "line {}: custom_id {:?} is taken by a line before it; give each its own",
                entry.line, entry.name
            ));
        }
    }
    let several = entries.iter().filter(|entry| entry.files > 1);
    for entry in several {
        for (index, path) in entry.paths().iter().enumerate() {
            let other = format!("{}-{index}", entry.name);
            if names.contains(other.as_str())
                && Entry::paths_of(&other, 1, entry.ending)[0] == *path
            {
                return Err(format!(
                    "line {}: result {index} of {:?} would be called as {other:?}; give one another custom_id",
                    entry.line, entry.name
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: impl AsRef<[u8]>) -> Result<Input> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.jsonl");
        std::fs::write(&path, text).unwrap();
        Input::read(&path, &BatchOptions::default())
    }

    #[test]
    fn seeds_of_the_fuzzer_are_requests_or_refused() {
        brisk_testkit::check_seeds("batch_file", false, |_, bytes| read(bytes));
    }

    #[test]
    fn prompts_are_named_by_their_lines() {
        let input = read("\u{feff}red heart\r\n\n  blue star  ").unwrap();
        let names: Vec<&str> = input.entries.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, ["1", "3"]);
        let body = input.body(&input.entries[1], "b").unwrap();
        assert_eq!(body["prompt"], "blue star");
        let seed = body["seed"].as_u64().unwrap();
        assert!(seed < 1 << 51 && seed != input.entries[0].seed("b"));
    }

    #[test]
    fn requests_say_what_they_want() {
        let input = read(
            "{\"custom_id\": \"a\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \
             \"body\": {\"messages\": [], \"seed\": 7}}\n\
             {\"body\": {\"prompt\": \"x\", \"n\": 2, \"output_format\": \"jpeg\"}}\n",
        )
        .unwrap();
        let [chat, picture] = input.entries.as_slice() else {
            panic!("{:?}", input.entries)
        };
        assert_eq!(
            (chat.endpoint, chat.files, chat.ending),
            (Endpoint::Chat, 1, "json")
        );
        assert_eq!(input.body(chat, "b").unwrap()["seed"], 7);
        assert_eq!((&*picture.name, picture.files), ("2", 2));
        assert!(picture.paths()[1].ends_with("/2-1.jpeg"));
    }

    #[test]
    fn what_is_no_request_is_named_with_its_line() {
        for (text, words) in [
            ("", "no requests"),
            ("\n \n", "no requests"),
            (
                "{\"body\": {\"prompt\": \"x\"}}\nblue",
                "line 2: it is no JSON",
            ),
            ("{}", "body: is missing"),
            ("{\"body\": 1}", "body: expected"),
            ("{\"body\": {\"prompt\": \"x\"}, \"extra\": 1}", "`extra`"),
            (
                "{\"body\": {\"prompt\": \"x\"}, \"url\": \"/v1/x\"}",
                "url: found",
            ),
            (
                "{\"body\": {\"prompt\": \"x\"}, \"method\": \"GET\"}",
                "method: found",
            ),
            (
                "{\"custom_id\": \"../x\", \"body\": {\"prompt\": \"x\"}}",
                "custom_id:",
            ),
            (
                "{\"body\": {\"prompt\": \"x\", \"stpes\": 1}}",
                "did you mean `steps`",
            ),
            ("{\"body\": {\"prompt\": \"x\", \"model\": 1}}", "model"),
            (
                "{\"custom_id\": \"a\", \"body\": {\"prompt\": \"x\"}}\n\
                 {\"custom_id\": \"a\", \"body\": {\"prompt\": \"y\"}}",
                "line 2: custom_id \"a\" is taken",
            ),
        ] {
            let error = read(text).map(drop).unwrap_err();
            let Error::Usage(message) = &error else {
                panic!("{error}")
            };
            assert!(message.contains(words), "{message}");
        }
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), &folder.path().join("none")] {
            let error = Input::read(path, &BatchOptions::default());
            assert!(matches!(error, Err(Error::Usage(_))));
        }
        let path = folder.path().join("latin");
        std::fs::write(&path, b"caf\xe9\n").unwrap();
        let error = Input::read(&path, &BatchOptions::default()).unwrap_err();
        assert!(
            error.to_string().contains("line 1: it is no UTF-8"),
            "{error}"
        );
    }
}
