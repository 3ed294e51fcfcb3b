//! Byte-pair merges by score.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::MARK;
use super::model::Model;

/// A part of a text that may be merged with its neighbours.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    /// 0: it was merged away.
    length: usize,
    previous: Option<usize>,
    next: Option<usize>,
    /// Whether it stays as it is.
    fixed: bool,
}

/// Two neighbours that make a piece.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    length: usize,
}

impl Ord for Pair {
    /// The highest score, and of equals the leftmost, is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        let scores = self.score.total_cmp(&other.score);
        scores.then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl Model {
    /// Ids of a text as it stands, spaces as marks.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let text: String = text
            .chars()
            .map(|c| if c == ' ' { MARK } else { c })
            .collect();
        let mut symbols = self.symbols(&text);
        let mut agenda = BinaryHeap::new();
        for left in 0..symbols.len().saturating_sub(1) {
            agenda.extend(self.pair(&text, &symbols, left, left + 1));
        }
        while let Some(pair) = agenda.pop() {
            let (left, right) = (symbols[pair.left], symbols[pair.right]);
            // One of the two may have been merged otherwise since.
            if left.length == 0 || right.length == 0 || left.length + right.length != pair.length {
                continue;
            }
            symbols[pair.left].length = pair.length;
            symbols[pair.left].next = right.next;
            symbols[pair.right].length = 0;
            if let Some(next) = right.next {
                symbols[next].previous = Some(pair.left);
                agenda.extend(self.pair(&text, &symbols, pair.left, next));
            }
            if let Some(previous) = left.previous {
                agenda.extend(self.pair(&text, &symbols, previous, pair.left));
            }
        }
        let mut ids = Vec::new();
        let mut at = if symbols.is_empty() { None } else { Some(0) };
        while let Some(place) = at {
            let symbol = symbols[place];
            self.push(&text[symbol.start..symbol.start + symbol.length], &mut ids);
            at = symbol.next;
        }
        ids
    }

    /// Characters, and what is found before anything is merged.
    fn symbols(&self, text: &str) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = Vec::new();
        let mut start = 0;
        while let Some(first) = text[start..].chars().next() {
            let found = self.user_defined.longest(&text.as_bytes()[start..]);
            let length = found.map_or(first.len_utf8(), |(length, _)| length);
            let place = symbols.len();
            if let Some(last) = symbols.last_mut() {
                last.next = Some(place);
            }
            symbols.push(Symbol {
                start,
                length,
                previous: place.checked_sub(1),
                next: None,
                fixed: found.is_some(),
            });
            start += length;
        }
        symbols
    }

    /// What two neighbours make together, if it is a piece.
    fn pair(&self, text: &str, symbols: &[Symbol], left: usize, right: usize) -> Option<Pair> {
        let (first, second) = (symbols[left], symbols[right]);
        let length = first.length + second.length;
        if first.fixed || second.fixed || length > self.longest {
            return None;
        }
        let id = self.ids.get(&text[first.start..first.start + length])?;
        Some(Pair {
            score: self.pieces[*id as usize].score,
            left,
            right,
            length,
        })
    }

    /// The id of a symbol, or of its bytes; unknown symbols in a row are one.
    fn push(&self, symbol: &str, ids: &mut Vec<u32>) {
        match (self.ids.get(symbol), &self.bytes) {
            (Some(id), _) => ids.push(*id),
            (None, Some(bytes)) => ids.extend(symbol.bytes().map(|byte| bytes[usize::from(byte)])),
            (None, None) if ids.last() == Some(&self.unknown) => {}
            (None, None) => ids.push(self.unknown),
        }
    }
}
