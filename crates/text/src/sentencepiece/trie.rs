//! Texts by their bytes, to find the longest that another begins with.

use std::collections::HashMap;

/// Texts with numbers.
#[derive(Debug, Default)]
pub(super) struct Trie {
    /// From a node by a byte to a node; the root is 0.
    steps: HashMap<(u32, u8), u32>,
    ends: HashMap<u32, u32>,
    nodes: u32,
}

impl Trie {
    /// Adds a text that is not empty.
    pub(super) fn insert(&mut self, text: &str, number: u32) {
        let mut node = 0;
        for byte in text.bytes() {
            node = *self.steps.entry((node, byte)).or_insert_with(|| {
                self.nodes += 1;
                self.nodes
            });
        }
        if node > 0 {
            self.ends.insert(node, number);
        }
    }

    /// Bytes and number of the longest text that `bytes` begins with.
    pub(super) fn longest(&self, bytes: &[u8]) -> Option<(usize, u32)> {
        let (mut node, mut found) = (0, None);
        for (at, byte) in bytes.iter().enumerate() {
            match self.steps.get(&(node, *byte)) {
                Some(next) => node = *next,
                None => break,
            }
            if let Some(number) = self.ends.get(&node) {
                found = Some((at + 1, *number));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_found() {
        let mut trie = Trie::default();
        assert_eq!(trie.longest(b"abc"), None);
        for (number, text) in ["ab", "abcd", "", "b"].into_iter().enumerate() {
            trie.insert(text, number as u32);
        }
        assert_eq!(trie.longest(b"abcde"), Some((4, 1)));
        assert_eq!(trie.longest(b"abcx"), Some((2, 0)));
        assert_eq!(trie.longest(b"b"), Some((1, 3)));
        assert_eq!(trie.longest(b"xab"), None);
    }
}
