//! From pieces to a text.

use super::MARK;

/// A part of a text.
pub(super) enum Part<'a> {
    /// A piece, in which marks are spaces.
    Piece(&'a str),
    /// A byte of a character that no piece spells.
    Byte(u8),
    /// A text as it stands.
    Text(&'a str),
}

/// Parts one after another. The mark that was put before the text, if one was (`prefix`), is dropped; bytes that
/// are no text become U+FFFD, each for itself.
pub(super) fn joined<'a>(parts: impl Iterator<Item = Part<'a>>, prefix: bool) -> String {
    let mut text = String::new();
    let mut bytes = Vec::new();
    for (at, part) in parts.enumerate() {
        if let Part::Byte(byte) = part {
            bytes.push(byte);
            continue;
        }
        flush(&mut bytes, &mut text);
        match part {
            Part::Piece(piece) => {
                let piece = match at {
                    0 if prefix => piece.strip_prefix(MARK).unwrap_or(piece),
                    _ => piece,
                };
                text.extend(piece.chars().map(|c| if c == MARK { ' ' } else { c }));
            }
            Part::Text(added) => text.push_str(added),
            Part::Byte(_) => {}
        }
    }
    flush(&mut bytes, &mut text);
    text
}

fn flush(bytes: &mut Vec<u8>, text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let wrong = chunk.invalid().iter();
        text.extend(wrong.map(|_| char::REPLACEMENT_CHARACTER));
    }
    bytes.clear();
}
