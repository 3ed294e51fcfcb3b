//! What of a model's tokens a reply shows: the decided beginning, up to an end.

use brisk_text::Tokenizer;

/// Stands for a character whose bytes are not all there.
const INCOMPLETE: char = '\u{fffd}';

/// How the text of a reply is cut from a canvas.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Tokens at the canvas's beginning that the reply leaves out.
    pub hidden: usize,
    /// Most tokens of the answer.
    pub most: usize,
    /// Tokens that end it.
    pub ends: Vec<u32>,
    /// Texts that end it.
    pub stops: Vec<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
}

/// What can be shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shown {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub tokens: usize,
    /// Whether it ended by itself, not by its length.
    pub ended: bool,
}

impl Answer {
    /// The text that will not change any more. While the model writes, what may be the beginning of a stop
    /// and a character that is not whole wait; `whole` says that nothing will follow.
    pub fn shown(&self, canvas: &[u32], mask: u32, whole: bool, tokenizer: &Tokenizer) -> Shown {
        let answer = canvas.get(self.hidden..).unwrap_or_default();
        let answer = &answer[..answer.len().min(self.most)];
        let decided = answer.iter().position(|id| *id == mask);
        let decided = &answer[..decided.unwrap_or(answer.len())];
        let end = decided.iter().position(|id| self.ends.contains(id));
        let (decided, ended) = match end {
            Some(end) => (&decided[..end], true),
            None => (decided, false),
        };
        let text = tokenizer.decode_known(decided).unwrap_or_default();
        let mut shown = Shown {
            text,
            tokens: decided.len(),
            ended,
        };
        let whole = whole || ended || decided.len() == self.most;
        self.cut(&mut shown, whole);
        shown
    }

    /// Cuts at the first stop, and what must wait.
    fn cut(&self, shown: &mut Shown, whole: bool) {
        let found = self
            .stops
            .iter()
            .filter_map(|stop| shown.text.find(stop))
            .min();
        if let Some(at) = found {
            shown.text.truncate(at);
            shown.ended = true;
            return;
        }
        if whole {
            return;
        }
        let kept = shown.text.trim_end_matches(INCOMPLETE).len();
        shown.text.truncate(kept);
        let waits = self.stops.iter().map(|stop| begun(&shown.text, stop)).max();
        let kept = shown.text.len() - waits.unwrap_or(0);
        shown.text.truncate(kept);
    }

    /// The canvas of the answer in turn: decided texts, and numbers of undecided tokens.
    pub fn pieces(&self, canvas: &[u32], mask: u32, tokenizer: &Tokenizer) -> Vec<Piece> {
        let answer = canvas.get(self.hidden..).unwrap_or_default();
        let answer = &answer[..answer.len().min(self.most)];
        answer
            .chunk_by(|a, b| (*a == mask) == (*b == mask))
            .map(|run| match run[0] == mask {
                true => Piece::Undecided(run.len()),
                false => Piece::Text(tokenizer.decode_known(run).unwrap_or_default()),
            })
            .collect()
    }
}

/// A piece of a canvas.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Decided.
    Text(String),
    /// So many tokens are open.
    Undecided(usize),
}

/// Bytes at the end of `text` that may be the beginning of `stop`.
fn begun(text: &str, stop: &str) -> usize {
    let lengths = stop.char_indices().map(|(at, _)| at).filter(|at| *at > 0);
    lengths
        .filter(|length| text.ends_with(&stop[..*length]))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, stops: &[&str], whole: bool) -> (String, bool) {
        let answer = Answer {
            stops: stops.iter().map(|stop| (*stop).to_owned()).collect(),
            ..Answer::default()
        };
        let mut shown = Shown {
            text: text.to_owned(),
            ..Shown::default()
        };
        answer.cut(&mut shown, whole);
        (shown.text, shown.ended)
    }

    #[test]
    fn stops_and_their_beginnings() {
        assert_eq!(cut("one\ntwo", &["\n"], false), ("one".to_owned(), true));
        assert_eq!(cut("one EN", &["END"], false), ("one ".to_owned(), false));
        assert_eq!(cut("one EN", &["END"], true), ("one EN".to_owned(), false));
        assert_eq!(cut("aab", &["b", "aab"], false), (String::new(), true));
        assert_eq!(cut("é", &["éé"], false), (String::new(), false));
    }

    #[test]
    fn a_character_waits_until_it_is_whole() {
        assert_eq!(cut("caf\u{fffd}", &[], false).0, "caf");
        assert_eq!(cut("caf\u{fffd}", &[], true).0, "caf\u{fffd}");
    }
}
