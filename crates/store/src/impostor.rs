//! What stands in a file's place when fetching it went wrong: told by its content, whatever its name.

use crate::read::without_mark;

/// Most bytes that are looked at; pointers and error messages are short, and pages say so at once.
pub(crate) const LOOKED_AT: usize = 4096;

/// What a file is instead of itself, with what to do, if its bytes (or its first 4096) say so:
/// a Git LFS pointer, a web page, a server's error message.
pub fn impostor(bytes: &[u8]) -> Option<String> {
    let start = &bytes[..bytes.len().min(LOOKED_AT)];
    let start = without_mark(start).trim_ascii_start();
    // The first line of a pointer, whatever host and version it names.
    if start.starts_with(b"version https://") && start.contains_word(b"git-lfs") {
        return Some(
            "this is a Git LFS pointer, not the file itself; run `git lfs pull`, or download the file"
                .to_owned(),
        );
    }
    let begins = |tag: &[u8]| {
        start
            .get(..tag.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(tag))
    };
    if begins(b"<!doctype html") || begins(b"<html") {
        return Some(
            "this is a web page, not the file itself: a page that asks to log in, or one that tells an \
             error, was saved under its name; download the file again"
                .to_owned(),
        );
    }
    if begins(b"<Error>") || (begins(b"<?xml") && start.contains_word(b"<Error>")) {
        return Some(
            "this is a server's error message in XML, not the file itself; download the file again"
                .to_owned(),
        );
    }
    if bytes.len() <= LOOKED_AT
        && start.starts_with(b"{")
        && let Some(message) = error_answer(start)
    {
        return Some(format!(
            "this is a server's error message ({message:?}), not the file itself; \
             download the file again"
        ));
    }
    None
}

/// The message of a JSON document that tells an error and nothing else, as the hub answers.
fn error_answer(bytes: &[u8]) -> Option<String> {
    const BESIDE: [&str; 7] = [
        "error",
        "message",
        "detail",
        "status",
        "statusCode",
        "code",
        "request_id",
    ];
    let document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(bytes).ok()?;
    let error = document.get("error")?.as_str()?;
    let only = document.keys().all(|key| BESIDE.contains(&key.as_str()));
    only.then(|| error.chars().take(120).collect())
}

trait ContainsWord {
    /// Whether the bytes hold `word`, in whatever case.
    fn contains_word(&self, word: &[u8]) -> bool;
}

impl ContainsWord for [u8] {
    fn contains_word(&self, word: &[u8]) -> bool {
        self.windows(word.len())
            .any(|window| window.eq_ignore_ascii_case(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_file_is_named() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 72600\n";
        for (bytes, named) in [
            (&pointer[..], "git lfs pull"),
            (b"\n<!DOCTYPE html>\n<html lang=en>", "web page"),
            (b"\xef\xbb\xbf<HTML><head>", "web page"),
            (
                b"<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code></Error>",
                "XML",
            ),
            (
                b"{\"error\":\"Repository not found\"}",
                "Repository not found",
            ),
            (
                b"{\"error\": \"x\", \"message\": \"y\", \"statusCode\": 404}",
                "\"x\"",
            ),
        ] {
            let found = impostor(bytes).unwrap_or_else(|| panic!("{named} not seen"));
            assert!(found.contains(named), "{found}");
        }
    }

    #[test]
    fn files_are_themselves() {
        for bytes in [
            &b""[..],
            b"version 1.0 of a text",
            b"a red heart <html>",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"<?xml version='1.0'?><svg/>",
            b"{\"error\": 1}",
            b"{\"error\": \"x\", \"model_type\": \"llada\"}",
            b"{\"message\": \"x\"}",
            b"\x08\0\0\0\0\0\0\0{\"error\": \"x\"}",
        ] {
            assert_eq!(impostor(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
