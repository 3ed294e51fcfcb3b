//! A tokenizer of the `tokenizers` library.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::guard::guarded;
use crate::kinds;
use crate::limits::{self, Growth, TEXT};
use crate::unique;
use crate::{Error, Result};
use tokenizers::TruncationDirection;

/// What a `tokenizer.json` describes. Truncation and padding settings of the file are ignored.
///
/// What a file asks for is bounded: a tokenizer that would make a text far longer, or that takes far longer than such a
/// text should, is an error that names the file.
pub(crate) struct Library {
    inner: Arc<tokenizers::Tokenizer>,
    growth: Growth,
    label: String,
}

impl Library {
    /// Reads the content of a `tokenizer.json`; `label` names it in messages.
    pub(crate) fn from_bytes(bytes: &[u8], label: &str) -> Result<Self> {
        let bad = |reason: String| Error::Load {
            label: label.to_owned(),
            reason,
        };
        // The library takes well-formed JSON for granted.
        let json: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        unique::check(bytes).map_err(|e| bad(e.to_string()))?;
        limits::check(&json).map_err(bad)?;
        let bytes = bytes.to_vec();
        let size = bytes.len();
        let read = move || tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| e.to_string());
        let explained = |reason| kinds::explain(&json).unwrap_or(reason);
        let inner = timed(size, read).map_err(|reason| bad(explained(reason)))?;
        Self::new(inner, label)
    }

    pub(crate) fn new(mut inner: tokenizers::Tokenizer, label: &str) -> Result<Self> {
        let bad = |e: tokenizers::Error| Error::Load {
            label: label.to_owned(),
            reason: e.to_string(),
        };
        inner.with_truncation(None).map_err(bad)?;
        inner.with_padding(None);
        if inner.get_vocab_size(true) == 0 {
            return Err(Error::Load {
                label: label.to_owned(),
                reason: "its vocabulary is empty".into(),
            });
        }
        let growth = Growth::new(&inner);
        Ok(Self {
            inner: Arc::new(inner),
            growth,
            label: label.to_owned(),
        })
    }

    /// Token ids of `text` with the special tokens that the tokenizer adds (for Gemma: `<bos>` in front).
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encoding(text, true)?.get_ids().to_vec())
    }

    /// Token ids of `text` as it stands; special tokens only where it spells them. For text that a chat template made.
    pub(crate) fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encoding(text, false)?.get_ids().to_vec())
    }

    fn encoding(&self, text: &str, special: bool) -> Result<tokenizers::Encoding> {
        if text.len() > TEXT {
            return Err(self.failed(format!(
                "the text has {} bytes; at most {TEXT} are tokenised at once",
                text.len()
            )));
        }
        let (growth, owned) = (self.growth.clone(), text.to_owned());
        self.run_timed(text.len(), move |inner| {
            growth.check(inner, &owned)?;
            inner.encode_fast(owned, special)
        })
    }

    /// Like [`encode`](Self::encode), but at most `limit` ids, cut at the right end of the text so that added special
    /// tokens stay. True when something was cut.
    pub(crate) fn encode_truncated(&self, text: &str, limit: usize) -> Result<(Vec<u32>, bool)> {
        let added = self
            .inner
            .get_post_processor()
            .map_or(0, |p| tokenizers::PostProcessor::added_tokens(p, false));
        let Some(room) = limit.checked_sub(added) else {
            return Err(Error::Argument(format!(
                "{}: a limit of {limit} tokens leaves no room for its {added} special tokens",
                self.label
            )));
        };
        let mut encoding = self.encoding(text, false)?;
        let cut = encoding.get_ids().len() > room;
        encoding.truncate(room, 0, TruncationDirection::Right);
        let encoding = self.run(|inner| inner.post_process(encoding, None, true))?;
        Ok((encoding.get_ids().to_vec(), cut))
    }

    /// Text of `ids`; special tokens are left out. Unknown ids are an error.
    pub(crate) fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|id| self.inner.id_to_token(**id).is_none()) {
            return Err(Error::Encode {
                label: self.label.clone(),
                reason: format!("no token has the id {id}"),
            });
        }
        self.decoded(ids.to_vec())
    }

    /// Text of `ids` without special tokens and without ids that no token has: a model's head may have more rows than
    /// its tokenizer has tokens.
    pub(crate) fn decode_known(&self, ids: &[u32]) -> Result<String> {
        let known: Vec<u32> = ids.iter().copied().filter(|id| self.knows(*id)).collect();
        self.decoded(known)
    }

    /// Whether a token has this id.
    pub(crate) fn knows(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_some()
    }

    /// Whether a token is left out of decoded text.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        let added = self.inner.get_added_tokens_decoder();
        added.get(&id).is_some_and(|token| token.special)
    }

    /// The highest id of a token.
    pub(crate) fn highest_id(&self) -> Option<u32> {
        self.inner.get_vocab(true).into_values().max()
    }

    /// The id of a token by its exact spelling, such as `<eos>`.
    pub(crate) fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, special ones included.
    pub(crate) fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Where the tokenizer came from, for messages.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    fn decoded(&self, ids: Vec<u32>) -> Result<String> {
        self.growth
            .check_decoding(&self.inner, &ids)
            .map_err(|reason| self.failed(reason))?;
        if !self.growth.may_search() {
            return self.run(|inner| inner.decode(&ids, true));
        }
        self.run_timed(ids.len(), move |inner| inner.decode(&ids, true))
    }

    fn failed(&self, reason: String) -> Error {
        Error::Encode {
            label: self.label.clone(),
            reason,
        }
    }

    /// What the library makes of something; its panics are errors, too.
    fn run<T>(
        &self,
        work: impl FnOnce(&tokenizers::Tokenizer) -> tokenizers::Result<T>,
    ) -> Result<T> {
        let result = guarded(|| work(&self.inner)).map_err(|reason| self.failed(reason))?;
        result.map_err(|error| self.failed(error.to_string()))
    }

    /// The same of something of `size` bytes or ids that may take long, in time.
    fn run_timed<T: Send + 'static>(
        &self,
        size: usize,
        work: impl FnOnce(&tokenizers::Tokenizer) -> tokenizers::Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        let found = timed(size, move || {
            work(&inner).map_err(|error| error.to_string())
        });
        found.map_err(|reason| self.failed(reason))
    }
}

/// Does `work` in a thread of its own, since the library cannot be interrupted: a file's regular expression may search
/// for hours. Work that is given up ends with the program.
fn timed<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> std::result::Result<T, String> + Send + 'static,
) -> std::result::Result<T, String> {
    let limit = Duration::from_secs(5 + 4 * (size >> 20) as u64);
    let (send, receive) = channel();
    let spawned = std::thread::Builder::new()
        .name("tokenizer".into())
        .spawn(move || {
            // Nobody listens any more where it took too long.
            let _ = send.send(guarded(work).and_then(|found| found));
        });
    let thread = spawned.map_err(|error| format!("there is no thread for it: {error}"))?;
    let found = receive.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!(
            "it takes longer than {} seconds; its normalizer, its regular expressions or its model are too slow for this text",
            limit.as_secs()
        ),
        RecvTimeoutError::Disconnected => "it broke off".to_owned(),
    })?;
    // It has nothing left to do, and is to be gone when the caller is told.
    let _ = thread.join();
    found
}
