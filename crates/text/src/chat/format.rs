//! Python's two ways to put values into a text: `"%s" % x` and `"{}".format(x)`.

use super::budget::Budget;
use super::fault::{Fault, Result};
use super::strings::padded;
use super::value::{Value, float_repr};

/// How a value is laid out: Python's format specification.
#[derive(Default, Clone)]
struct Layout {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: i64,
    group: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

/// Digits after the point that a number may ask for.
const MOST_DIGITS: usize = 1000;

fn number(digits: &str) -> Result<i64> {
    digits
        .parse()
        .map_err(|_| Fault::new(format!("the width {digits} is too large")))
}

impl Layout {
    /// Reads `[[fill]align][sign][#][0][width][grouping][.precision][type]`.
    fn parse(text: &str) -> Result<Self> {
        let mut layout = Self::default();
        let characters: Vec<char> = text.chars().take(64).collect();
        let bad = || {
            Fault::new(format!(
                "invalid format specifier '{}'",
                text.chars().take(40).collect::<String>()
            ))
        };
        let mut rest = &characters[..];
        let is_align = |c: &char| matches!(c, '<' | '>' | '^' | '=');
        if let [fill, align, after @ ..] = rest
            && is_align(align)
        {
            (layout.fill, layout.align, rest) = (Some(*fill), Some(*align), after);
        } else if let [align, after @ ..] = rest
            && is_align(align)
        {
            (layout.align, rest) = (Some(*align), after);
        }
        if let [sign @ ('+' | '-' | ' '), after @ ..] = rest {
            (layout.sign, rest) = (Some(*sign), after);
        }
        if let ['#', after @ ..] = rest {
            (layout.alternate, rest) = (true, after);
        }
        if let ['0', after @ ..] = rest {
            (layout.zero, rest) = (true, after);
        }
        let digits = |rest: &mut &[char]| -> Option<String> {
            let count = rest.iter().take_while(|c| c.is_ascii_digit()).count();
            let found = rest[..count].iter().collect();
            *rest = &rest[count..];
            (count > 0).then_some(found)
        };
        if let Some(width) = digits(&mut rest) {
            layout.width = number(&width)?;
        }
        if let [group @ (',' | '_'), after @ ..] = rest {
            (layout.group, rest) = (Some(*group), after);
        }
        if let ['.', after @ ..] = rest {
            rest = after;
            let precision = digits(&mut rest).ok_or_else(bad)?;
            layout.precision = Some(usize::try_from(number(&precision)?).unwrap_or(usize::MAX));
        }
        if let [kind, after @ ..] = rest {
            (layout.kind, rest) = (Some(*kind), after);
        }
        if !rest.is_empty() || characters.len() == 64 {
            return Err(bad());
        }
        Ok(layout)
    }

    fn apply(&self, value: &Value, budget: &Budget) -> Result<String> {
        let is_number = matches!(value, Value::Int(_) | Value::Float(_))
            || (matches!(value, Value::Bool(_)) && self.kind.is_some_and(|kind| kind != 's'));
        if !is_number {
            if !matches!(self.kind, None | Some('s')) {
                return Err(Fault::new(format!(
                    "format '{}' does not fit a value of type '{}'",
                    self.kind.unwrap_or(' '),
                    value.kind()
                )));
            }
            let text = value.to_text(budget)?;
            let cut: String = match self.precision {
                Some(most) => text.chars().take(most).collect(),
                None => text.to_string(),
            };
            return self.pad(&cut, "", '<', budget);
        }
        let negative = value
            .as_float()
            .is_some_and(|number| number.is_sign_negative());
        let digits = self.digits(value)?;
        let digits = digits.strip_prefix('-').unwrap_or(&digits);
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        };
        self.pad(&self.grouped(digits), sign, '>', budget)
    }

    fn digits(&self, value: &Value) -> Result<String> {
        let precision = self.precision.unwrap_or(6);
        if precision > MOST_DIGITS {
            return Err(Fault::new(format!(
                "a precision of {precision} is too large"
            )));
        }
        let whole = value.as_int();
        let float = value.as_float().unwrap_or(f64::NAN);
        let prefix = |mark: &'static str| if self.alternate { mark } else { "" };
        Ok(match (self.kind, whole) {
            (None | Some('d' | 'i' | 'u' | 'n'), Some(whole)) => whole.unsigned_abs().to_string(),
            (Some('d' | 'i' | 'u'), None) => format!("{:.0}", float.trunc().abs()),
            (Some('x'), Some(whole)) => format!("{}{:x}", prefix("0x"), whole.unsigned_abs()),
            (Some('X'), Some(whole)) => format!("{}{:X}", prefix("0X"), whole.unsigned_abs()),
            (Some('o'), Some(whole)) => format!("{}{:o}", prefix("0o"), whole.unsigned_abs()),
            (Some('b'), Some(whole)) => format!("{}{:b}", prefix("0b"), whole.unsigned_abs()),
            (Some('c'), Some(whole)) => u32::try_from(whole)
                .ok()
                .and_then(char::from_u32)
                .ok_or_else(|| Fault::new("%c arg not in range"))?
                .to_string(),
            (Some('f' | 'F'), _) => format!("{float:.precision$}"),
            (Some('e' | 'E'), _) => {
                let text = with_exponent(&format!("{float:.precision$e}"));
                if self.kind == Some('E') {
                    text.to_uppercase()
                } else {
                    text
                }
            }
            (Some('%'), _) => format!("{:.precision$}%", float * 100.0),
            (Some('g' | 'G'), _) => general(float, precision.max(1)),
            (None, None) => match self.precision {
                Some(precision) => general(float, precision.max(1)),
                None => float_repr(float),
            },
            (Some(kind), _) => {
                return Err(Fault::new(format!(
                    "format '{kind}' does not fit a value of type '{}'",
                    value.kind()
                )));
            }
        })
    }

    fn grouped(&self, digits: &str) -> String {
        let Some(mark) = self.group else {
            return digits.to_owned();
        };
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        let mut made = String::new();
        for (place, digit) in digits[..end].chars().enumerate() {
            if place > 0 && (end - place).is_multiple_of(3) {
                made.push(mark);
            }
            made.push(digit);
        }
        made + &digits[end..]
    }

    fn pad(&self, body: &str, sign: &str, usual: char, budget: &Budget) -> Result<String> {
        let inner = (self.zero && self.align.is_none()) || self.align == Some('=');
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        if inner {
            let width = self.width.saturating_sub(sign.len() as i64);
            let body = padded(body, width, fill, "rjust", budget)?;
            return Ok(format!("{sign}{}", body.as_str().unwrap_or_default()));
        }
        let how = match self.align.unwrap_or(usual) {
            '<' => "ljust",
            '>' => "rjust",
            _ => "middle",
        };
        let text = format!("{sign}{body}");
        if how == "middle" {
            // A format gives the odd one to the right.
            let missing = usize::try_from(self.width)
                .unwrap_or(0)
                .saturating_sub(text.chars().count());
            budget.make_times(fill.len_utf8(), missing)?;
            let side = |count| std::iter::repeat_n(fill, count).collect::<String>();
            return Ok(format!(
                "{}{text}{}",
                side(missing / 2),
                side(missing - missing / 2)
            ));
        }
        let made = padded(&text, self.width, fill, how, budget)?;
        Ok(made.as_str().unwrap_or_default().to_owned())
    }
}

/// Rust's exponent in Python's spelling.
fn with_exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        None => text.to_owned(),
    }
}

/// `%g`: so many digits that count, without zeros at the end.
fn general(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return float_repr(value);
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let exponent: i32 = scientific
        .split_once('e')
        .and_then(|(_, e)| e.parse().ok())
        .unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let (mantissa, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
        return with_exponent(&format!("{}e{exponent}", trim(mantissa)));
    }
    let after = usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0);
    trim(&format!("{value:.after$}"))
}

/// Takes the digits in front of a text.
fn leading_number(rest: &mut &str) -> Result<Option<i64>> {
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    if digits.is_empty() {
        Ok(None)
    } else {
        number(digits).map(Some)
    }
}

/// `text % values`.
pub fn percent(text: &str, values: &Value, budget: &Budget) -> Result<Value> {
    let listed = match values {
        Value::Tuple(sequence) => sequence.items.clone(),
        // The parser does not tell `(a, b)` from `[a, b]`; a list is rarely meant as one value.
        Value::List(sequence) => sequence.items.clone(),
        one => vec![one.clone()],
    };
    let mut next = listed.iter();
    let few = || Fault::new("not enough arguments for format string");
    let mut made = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        budget.make(at)?;
        made.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut named = None;
        if let Some(after) = rest.strip_prefix('(') {
            let (name, after) = after
                .split_once(')')
                .ok_or_else(|| Fault::new("incomplete format key"))?;
            let Value::Dict(dict) = values else {
                return Err(Fault::new("format requires a mapping"));
            };
            named = dict.get_str(name, budget)?;
            if named.is_none() {
                return Err(Fault::new(format!("the format key '{name}' is not there")));
            }
            rest = after;
        }
        let mut layout = Layout::default();
        let flags = rest.find(|c| !"#0- +".contains(c)).unwrap_or(rest.len());
        for flag in rest[..flags].chars() {
            match flag {
                '#' => layout.alternate = true,
                '0' => layout.zero = true,
                '-' => layout.align = Some('<'),
                sign => layout.sign = Some(sign),
            }
        }
        rest = &rest[flags..];
        let width = if let Some(after) = rest.strip_prefix('*') {
            rest = after;
            let width = next.next().and_then(Value::as_int);
            Some(width.ok_or_else(|| Fault::new("* wants int"))?)
        } else {
            leading_number(&mut rest)?
        };
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            precision = Some(leading_number(&mut rest)?.unwrap_or(0));
        }
        layout.width = width.unwrap_or(0);
        layout.precision = precision.map(|value| usize::try_from(value).unwrap_or(usize::MAX));
        let kind = rest
            .chars()
            .next()
            .ok_or_else(|| Fault::new("incomplete format"))?;
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            made.push('%');
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => next.next().ok_or_else(few)?,
        };
        let piece = match kind {
            's' | 'r' | 'a' => {
                layout.kind = Some('s');
                let text = if kind == 's' {
                    value.to_text(budget)?
                } else {
                    repr(value, budget)?.into()
                };
                layout.zero = false;
                layout.align = layout.align.or(Some('>'));
                layout.apply(&Value::Str(text), budget)?
            }
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'c' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                layout.kind = Some(kind);
                if value.as_float().is_none() {
                    return Err(Fault::new(format!(
                        "%{kind} format: a number is required, not {}",
                        value.defined()?.kind()
                    )));
                }
                layout.apply(value, budget)?
            }
            other => {
                return Err(Fault::new(format!(
                    "unsupported format character '{other}'"
                )));
            }
        };
        budget.make(piece.len())?;
        made.push_str(&piece);
    }
    if !matches!(values, Value::Dict(_)) && next.next().is_some() {
        return Err(Fault::new(
            "not all arguments converted during string formatting",
        ));
    }
    Value::text(made + rest, budget)
}

fn repr(value: &Value, budget: &Budget) -> Result<String> {
    let mut text = String::new();
    value.write_repr(&mut text, budget)?;
    Ok(text)
}

/// `text.format(...)`. `field` finds a value by its name or number, attributes and items included.
pub fn braces(
    text: &str,
    field: &mut dyn FnMut(&str) -> Result<Value>,
    budget: &Budget,
) -> Result<Value> {
    let mut made = String::new();
    let mut automatic = 0;
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        budget.make(at + 1)?;
        made.push_str(&rest[..at]);
        let mark = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(mark) {
            made.push_str(mark);
            rest = after;
            continue;
        }
        if mark == "}" {
            return Err(Fault::new("Single '}' encountered in format string"));
        }
        let open = Fault::new("expected '}' before end of string");
        let (inside, after) = rest.split_once('}').ok_or(open)?;
        if inside.contains('{') {
            return Err(Fault::new(
                "fields inside of format specifiers are not supported",
            ));
        }
        rest = after;
        let (name, layout) = inside.split_once(':').unwrap_or((inside, ""));
        let (name, conversion) = name.split_once('!').unwrap_or((name, ""));
        let numbered;
        let name = if name.is_empty() || name.starts_with(['.', '[']) {
            numbered = format!("{automatic}{name}");
            automatic += 1;
            &numbered
        } else {
            name
        };
        let mut value = field(name)?;
        match conversion {
            "" => {}
            "s" => value = Value::Str(value.to_text(budget)?),
            "r" | "a" => value = Value::text(repr(&value, budget)?, budget)?,
            other => {
                return Err(Fault::new(format!(
                    "unknown conversion specifier '{other}'"
                )));
            }
        }
        let piece = Layout::parse(layout)?.apply(&value, budget)?;
        budget.make(piece.len())?;
        made.push_str(&piece);
    }
    Value::text(made + rest, budget)
}
