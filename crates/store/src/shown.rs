//! Text of a file in a message.

/// Characters of a name that a message quotes.
const LONGEST: usize = 80;

/// A name or text from a file as messages show it: at most 80 characters, see [`shown_within`].
pub fn shown(text: &str) -> String {
    shown_within(text, LONGEST)
}

/// A text from a file with at most `longest` of its characters and the number of bytes left out; none
/// that a terminal would obey: control characters, line ends among them, and marks of direction are
/// escaped.
pub fn shown_within(text: &str, longest: usize) -> String {
    let mut shown = String::new();
    for (place, (at, c)) in text.char_indices().enumerate() {
        if place == longest {
            shown.push_str(&format!("… ({} more bytes)", text.len() - at));
            break;
        }
        if is_obeyed(c) || matches!(c, '\n' | '\t') {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// An error's message and its causes, leaving out what a message already quotes.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

/// Whether a terminal does something at this character, other than ending a line or going to a column.
pub fn is_obeyed(c: char) -> bool {
    let direction =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    direction || (c.is_control() && !matches!(c, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_obeyed_and_nothing_is_long() {
        assert_eq!(
            shown("a\u{1b}[2J\nerror: b\u{7}\u{9b}\u{202e}"),
            "a\\u{1b}[2J\\nerror: b\\u{7}\\u{9b}\\u{202e}"
        );
        assert_eq!(shown("größe.weight"), "größe.weight");
        let long = shown(&"é".repeat(1_000_000));
        assert_eq!(long, format!("{}… (1999840 more bytes)", "é".repeat(80)));
        assert_eq!(shown_within("abc", 3), "abc");
    }
}
