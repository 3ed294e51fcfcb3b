//! Pictures of requests: too large for messages, they lie in a bucket under their hash.

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;

use super::connect::Queue;
use super::layout::INPUTS;
use crate::batch::sha256;
use crate::error::{Error, Result};

/// Longest data URL that stays in its message.
const MOST: usize = 4 << 10;
/// What stands for a picture: this and its hash.
const MARK: &str = "brisk-input:";

impl Queue {
    /// Puts the pictures of a request into the bucket and leaves their hashes.
    ///
    /// # Errors
    /// The queue is away or full.
    pub async fn keep_pictures(&self, body: &mut Map<String, Value>) -> Result<()> {
        for value in body.values_mut() {
            self.keep(value).await?;
        }
        Ok(())
    }

    /// Puts the pictures back.
    ///
    /// # Errors
    /// The queue is away, or has a picture no more.
    pub async fn fetch_pictures(&self, body: &mut Map<String, Value>) -> Result<()> {
        for value in body.values_mut() {
            self.restore(value).await?;
        }
        Ok(())
    }

    fn keep<'a>(&'a self, value: &'a mut Value) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match value {
                Value::String(text) if text.len() > MOST && text.starts_with("data:") => {
                    let hash = sha256(text.as_bytes());
                    let objects = self.objects(INPUTS).await?;
                    if objects.info(&hash).await.is_err() {
                        let put = objects.put(hash.as_str(), &mut text.as_bytes()).await;
                        put.map_err(|error| failed(&error))?;
                    }
                    *text = format!("{MARK}{hash}");
                }
                Value::Array(list) => {
                    for value in list {
                        self.keep(value).await?;
                    }
                }
                Value::Object(fields) => {
                    for value in fields.values_mut() {
                        self.keep(value).await?;
                    }
                }
                _ => {}
            }
            Ok(())
        })
    }

    fn restore<'a>(&'a self, value: &'a mut Value) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match value {
                Value::String(text) => {
                    if let Some(hash) = hash_of(text) {
                        let objects = self.objects(INPUTS).await?;
                        let mut object = objects.get(hash).await.map_err(|error| failed(&error))?;
                        let mut whole = String::new();
                        object
                            .read_to_string(&mut whole)
                            .await
                            .map_err(|error| failed(&error))?;
                        *text = whole;
                    }
                }
                Value::Array(list) => {
                    for value in list {
                        self.restore(value).await?;
                    }
                }
                Value::Object(fields) => {
                    for value in fields.values_mut() {
                        self.restore(value).await?;
                    }
                }
                _ => {}
            }
            Ok(())
        })
    }
}

/// The hash that stands for a picture.
fn hash_of(text: &str) -> Option<&str> {
    let hash = text.strip_prefix(MARK)?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then_some(hash)
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::Failed(format!("the queue's {INPUTS}: {error}"))
}
