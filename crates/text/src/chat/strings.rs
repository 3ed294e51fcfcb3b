//! The methods of Python's strings, by characters as Python counts them.

use std::rc::Rc;

use super::arguments::{Arguments, flag_or, int_or, text, text_or_none};
use super::budget::Budget;
use super::fault::{Fault, Result};
use super::value::Value;

/// Their names.
pub const METHODS: [&str; 42] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "title",
    "upper",
    "zfill",
];

/// White space as Python's strings know it: Unicode's, and the four information separators.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Calls a method; `format` is the evaluator's own.
pub fn call(own: &Rc<str>, method: &str, arguments: Arguments, budget: &Budget) -> Result<Value> {
    budget.read(own.len())?;
    let new = |made: String| Value::text(made, budget);
    match method {
        "lower" | "casefold" | "upper" | "capitalize" | "title" => {
            arguments.none(method)?;
            // A character becomes at most three.
            budget.make_times(own.len(), 3)?;
            new(match method {
                "lower" => own.to_lowercase(),
                "casefold" => own.to_lowercase().replace('ß', "ss"),
                "upper" => own.to_uppercase(),
                "capitalize" => capitalized(own),
                _ => titled(own),
            })
        }
        "strip" | "lstrip" | "rstrip" => {
            let [characters] = arguments.bind(method, ["chars"], 0)?;
            let characters = text_or_none(method, characters)?;
            if let Some(set) = &characters {
                budget.read(own.len().saturating_mul(set.len()))?;
            }
            let drop = |c: char| match &characters {
                Some(set) => set.contains(c),
                None => is_space(c),
            };
            new(match method {
                "strip" => own.trim_matches(drop),
                "lstrip" => own.trim_start_matches(drop),
                _ => own.trim_end_matches(drop),
            }
            .to_owned())
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = arguments.bind(method, ["affix"], 1)?;
            let affix = text(method, affix)?;
            let rest = if method == "removeprefix" {
                own.strip_prefix(&*affix)
            } else {
                own.strip_suffix(&*affix)
            };
            new(rest.unwrap_or(own).to_owned())
        }
        "startswith" | "endswith" => {
            let [affix, start, end] = arguments.bind(method, ["prefix", "start", "end"], 1)?;
            let own = part(method, own, start, end)?;
            let fits = |affix: &Value| match affix {
                Value::Str(affix) if method == "startswith" => Ok(own.starts_with(&**affix)),
                Value::Str(affix) => Ok(own.ends_with(&**affix)),
                other => Err(Fault::new(format!(
                    "{method} first arg must be str or a tuple of str, not {}",
                    other.defined()?.kind()
                ))),
            };
            match affix {
                Some(Value::Tuple(affixes) | Value::List(affixes)) => {
                    for affix in &affixes.items {
                        budget.work(1)?;
                        if fits(affix)? {
                            return Ok(Value::Bool(true));
                        }
                    }
                    Ok(Value::Bool(false))
                }
                affix => Ok(Value::Bool(fits(&affix.unwrap_or(Value::None))?)),
            }
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [wanted, start, end] = arguments.bind(method, ["sub", "start", "end"], 1)?;
            let wanted = text(method, wanted)?;
            let skipped = skipped(method, own, &start)?;
            let own = part(method, own, start, end)?;
            if method == "count" {
                return Ok(Value::Int(if wanted.is_empty() {
                    own.chars().count() as i64 + 1
                } else {
                    own.matches(&*wanted).count() as i64
                }));
            }
            let found = if method.starts_with('r') {
                own.rfind(&*wanted)
            } else {
                own.find(&*wanted)
            };
            match found {
                Some(at) => Ok(Value::Int((own[..at].chars().count() + skipped) as i64)),
                None if method.ends_with("find") => Ok(Value::Int(-1)),
                None => Err(Fault::new("substring not found")),
            }
        }
        "replace" => {
            let [old, replacement, count] = arguments.bind(method, ["old", "new", "count"], 2)?;
            let (old, replacement) = (text(method, old)?, text(method, replacement)?);
            let count = usize::try_from(int_or(method, count, -1)?).unwrap_or(usize::MAX);
            replace(own, &old, &replacement, count, budget)
        }
        "split" | "rsplit" => {
            let [mark, most] = arguments.bind(method, ["sep", "maxsplit"], 0)?;
            let mark = text_or_none(method, mark)?;
            let most = usize::try_from(int_or(method, most, -1)?).unwrap_or(usize::MAX);
            let from_right = method == "rsplit";
            match mark {
                Some(mark) if mark.is_empty() => Err(Fault::new("empty separator")),
                Some(mark) if from_right => {
                    let pieces = own.rsplitn(most.saturating_add(1), &*mark);
                    reversed(pieces, budget)
                }
                Some(mark) => Value::texts(own.splitn(most.saturating_add(1), &*mark), budget),
                None if from_right => reversed(words_from_right(own, most), budget),
                None => Value::texts(words(own, most), budget),
            }
        }
        "splitlines" => {
            let [keep] = arguments.bind(method, ["keepends"], 0)?;
            Value::texts(lines(own, flag_or(keep, false)), budget)
        }
        "partition" | "rpartition" => {
            let [mark] = arguments.bind(method, ["sep"], 1)?;
            let mark = text(method, mark)?;
            if mark.is_empty() {
                return Err(Fault::new("empty separator"));
            }
            let (found, rest) = if method == "partition" {
                (own.split_once(&*mark), [&**own, "", ""])
            } else {
                (own.rsplit_once(&*mark), ["", "", &**own])
            };
            let pieces = found.map_or(rest, |(before, after)| [before, &*mark, after]);
            let pieces = pieces.map(|piece| Value::text(piece, budget));
            Value::tuple(pieces.into_iter().collect::<Result<_>>()?, budget)
        }
        "join" => {
            let [items] = arguments.bind(method, ["iterable"], 1)?;
            let items = items.unwrap_or(Value::None).defined()?.elements(budget)?;
            let mut joined = String::new();
            for (place, item) in items.iter().enumerate() {
                let piece = item.as_str().ok_or_else(|| {
                    Fault::new(format!(
                        "sequence item {place}: expected str instance, {} found",
                        item.kind()
                    ))
                })?;
                if place > 0 {
                    budget.make(own.len())?;
                    joined.push_str(own);
                }
                budget.make(piece.len())?;
                joined.push_str(piece);
            }
            Ok(Value::Str(joined.into()))
        }
        "center" | "ljust" | "rjust" => {
            let [width, fill] = arguments.bind(method, ["width", "fillchar"], 1)?;
            let width = int_or(method, width, 0)?;
            let fill = text_or_none(method, fill)?;
            let fill = match fill
                .as_deref()
                .map(|fill| (fill.chars().next(), fill.chars().count()))
            {
                None => ' ',
                Some((Some(c), 1)) => c,
                _ => return Err(Fault::new("the fill must be exactly one character")),
            };
            padded(own, width, fill, method, budget)
        }
        "zfill" => {
            let [width] = arguments.bind(method, ["width"], 1)?;
            let width = int_or(method, width, 0)?;
            let (sign, digits) = match own.strip_prefix(['-', '+']) {
                Some(digits) => (&own[..1], digits),
                None => ("", &**own),
            };
            let digits = padded(digits, width - sign.len() as i64, '0', "rjust", budget)?;
            new(format!("{sign}{}", digits.as_str().unwrap_or_default()))
        }
        "expandtabs" => {
            let [size] = arguments.bind(method, ["tabsize"], 0)?;
            let size = usize::try_from(int_or(method, size, 8)?).unwrap_or(0);
            let mut made = String::new();
            let mut column = 0;
            for c in own.chars() {
                if c == '\t' {
                    let fill = size.checked_rem(size).map_or(0, |_| size - column % size);
                    budget.make(fill)?;
                    made.extend(std::iter::repeat_n(' ', fill));
                    column += fill;
                } else {
                    made.push(c);
                    column = if matches!(c, '\n' | '\r') {
                        0
                    } else {
                        column + 1
                    };
                }
            }
            new(made)
        }
        _ => {
            arguments.none(method)?;
            is(own, method).map(Value::Bool)
        }
    }
}

/// The questions that a text answers.
fn is(own: &str, method: &str) -> Result<bool> {
    let all = |test: fn(char) -> bool| !own.is_empty() && own.chars().all(test);
    let cased = own.chars().any(|c| c.is_lowercase() || c.is_uppercase());
    Ok(match method {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => own.is_ascii(),
        "isdecimal" => all(|c| c.is_ascii_digit()),
        "isdigit" => all(|c| c.is_ascii_digit() || superscript(c)),
        "isnumeric" => all(char::is_numeric),
        "isidentifier" => {
            let mut characters = own.chars();
            let first = characters.next();
            first.is_some_and(|c| c == '_' || c.is_alphabetic())
                && characters.all(|c| c == '_' || c.is_alphanumeric())
        }
        "islower" => cased && !own.chars().any(char::is_uppercase),
        "isupper" => cased && !own.chars().any(char::is_lowercase),
        "isprintable" => !own
            .chars()
            .any(|c| c.is_control() || (c != ' ' && is_space(c))),
        "isspace" => all(is_space),
        "istitle" => cased && titled(own) == own,
        _ => {
            return Err(Fault::new(format!(
                "'str object' has no attribute '{method}'"
            )));
        }
    })
}

fn superscript(c: char) -> bool {
    matches!(c, '²' | '³' | '¹' | '⁰'..='⁹' | '₀'..='₉')
}

/// `replace`, paid for by what it makes.
pub fn replace(own: &str, old: &str, new: &str, count: usize, budget: &Budget) -> Result<Value> {
    budget.read(own.len())?;
    let found = if old.is_empty() {
        own.chars().count() + 1
    } else {
        own.matches(old).count()
    };
    budget.make_times(new.len(), found.min(count))?;
    Value::text(own.replacen(old, new, count), budget)
}

/// A text in a field of `width` characters.
pub fn padded(own: &str, width: i64, fill: char, how: &str, budget: &Budget) -> Result<Value> {
    let length = own.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(length);
    budget.make_times(fill.len_utf8(), missing)?;
    // Python's own rule: an odd one goes left where the width is odd, too.
    let left = match how {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1),
    };
    let mut made = String::new();
    made.extend(std::iter::repeat_n(fill, left));
    made.push_str(own);
    made.extend(std::iter::repeat_n(fill, missing - left));
    Value::text(made, budget)
}

/// The first letter large, the others small.
pub fn capitalized(own: &str) -> String {
    let mut characters = own.chars();
    match characters.next() {
        Some(first) => first
            .to_uppercase()
            .chain(characters.as_str().to_lowercase().chars())
            .collect(),
        None => String::new(),
    }
}

/// The first letter of every run of letters large, the others small.
fn titled(own: &str) -> String {
    let mut made = String::with_capacity(own.len());
    let mut inside = false;
    for c in own.chars() {
        if inside {
            made.extend(c.to_lowercase());
        } else {
            made.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    made
}

fn reversed<'a>(pieces: impl Iterator<Item = &'a str>, budget: &Budget) -> Result<Value> {
    let mut pieces: Vec<&str> = pieces.collect();
    pieces.reverse();
    Value::texts(pieces.into_iter(), budget)
}

/// Words between white space; what follows `most` of them stays one.
fn words(own: &str, most: usize) -> impl Iterator<Item = &str> {
    let mut rest = own.trim_start_matches(is_space);
    let mut done = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = if done == most {
            None
        } else {
            rest.find(is_space)
        };
        done += 1;
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after.trim_start_matches(is_space);
        Some(word)
    })
}

fn words_from_right(own: &str, most: usize) -> impl Iterator<Item = &str> {
    let mut rest = own.trim_end_matches(is_space);
    let mut done = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mark = if done == most {
            None
        } else {
            rest.char_indices().rfind(|(_, c)| is_space(*c))
        };
        done += 1;
        let start = mark.map_or(0, |(at, c)| at + c.len_utf8());
        let word = &rest[start..];
        rest = rest[..start].trim_end_matches(is_space);
        Some(word)
    })
}

/// Lines, ended as Python's `splitlines` ends them.
pub fn lines(own: &str, keep: bool) -> impl Iterator<Item = &str> {
    let mut rest = own;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let ends = |c: char| {
            matches!(
                c,
                '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                    ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
            )
        };
        let end = rest.find(ends).unwrap_or(rest.len());
        let mark = if rest[end..].starts_with("\r\n") {
            2
        } else {
            rest[end..].chars().next().map_or(0, char::len_utf8)
        };
        let line = &rest[..if keep { end + mark } else { end }];
        rest = &rest[end + mark..];
        Some(line)
    })
}

/// Where a character's place stands in bytes, counted from the end where negative.
fn byte_of(own: &str, place: i64) -> usize {
    let place = if place < 0 {
        let length = own.chars().count() as i64;
        place.saturating_add(length).max(0)
    } else {
        place
    };
    let mut starts = own.char_indices().map(|(at, _)| at);
    usize::try_from(place)
        .ok()
        .and_then(|place| starts.nth(place))
        .unwrap_or(own.len())
}

/// Characters before `start`.
fn skipped(method: &str, own: &str, start: &Option<Value>) -> Result<usize> {
    let start = int_or(method, start.clone(), 0)?;
    Ok(own[..byte_of(own, start)].chars().count())
}

/// The characters from `start` to `end`.
fn part<'a>(
    method: &str,
    own: &'a str,
    start: Option<Value>,
    end: Option<Value>,
) -> Result<&'a str> {
    let start = byte_of(own, int_or(method, start, 0)?);
    let end = byte_of(own, int_or(method, end, i64::MAX)?);
    Ok(own.get(start..end).unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(own: &str, method: &str, arguments: &[Value]) -> String {
        let budget = Budget::new();
        let own: Rc<str> = own.into();
        let arguments = Arguments {
            positional: arguments.to_vec(),
            named: Vec::new(),
        };
        match call(&own, method, arguments, &budget) {
            Ok(Value::Str(text)) => text.to_string(),
            Ok(other) => other.to_text(&budget).unwrap().to_string(),
            Err(fault) => format!("! {fault}"),
        }
    }

    #[test]
    fn empty_texts_are_counted_as_in_python() {
        assert_eq!(run("x", "count", &[Value::str("")]), "2");
        assert_eq!(run("", "count", &[Value::str("")]), "1");
        assert_eq!(
            run("ab", "replace", &[Value::str(""), Value::str("-")]),
            "-a-b-"
        );
    }

    #[test]
    fn places_are_characters() {
        assert_eq!(run("äöü", "find", &[Value::str("ü")]), "2");
        assert_eq!(run("äöü", "find", &[Value::str("ä"), Value::Int(1)]), "-1");
        assert_eq!(run("äöäü", "find", &[Value::str("ä"), Value::Int(-2)]), "2");
    }

    #[test]
    fn words_and_lines() {
        assert_eq!(run("  a b  c ", "split", &[]), "['a', 'b', 'c']");
        assert_eq!(
            run(" a b c ", "split", &[Value::None, Value::Int(1)]),
            "['a', 'b c ']"
        );
        assert_eq!(
            run(" a b c ", "rsplit", &[Value::None, Value::Int(1)]),
            "[' a b', 'c']"
        );
        assert_eq!(
            run("a,b,c", "rsplit", &[Value::str(","), Value::Int(1)]),
            "['a,b', 'c']"
        );
        assert_eq!(
            run("a\r\nb\n", "splitlines", &[Value::Bool(true)]),
            "['a\\r\\n', 'b\\n']"
        );
        assert_eq!(run("ab", "center", &[Value::Int(5)]), "  ab ");
        assert_eq!(run("-5", "zfill", &[Value::Int(4)]), "-005");
    }

    #[test]
    fn nothing_huge_is_made() {
        let huge = Value::Int(i64::MAX);
        for (method, arguments) in [
            ("center", vec![huge.clone()]),
            ("zfill", vec![huge.clone()]),
            (
                "replace",
                vec![Value::str(""), Value::str(&"y".repeat(1 << 20))],
            ),
        ] {
            let own = "x".repeat(1 << 20);
            assert!(
                run(&own, method, &arguments).starts_with("! its text"),
                "{method}"
            );
        }
        assert!(run("\t\t", "expandtabs", &[huge]).starts_with("! its text"));
    }
}
