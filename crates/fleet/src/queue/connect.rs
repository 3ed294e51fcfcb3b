//! The way to a queue.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event};
use clap::Args;

use crate::error::{Error, Result};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time between two tries to reach a queue that is away.
const MOST_APART: Duration = Duration::from_secs(2);

/// Which queue, and how it is entered.
#[derive(Debug, Clone, Args)]
pub struct QueueOptions {
    /// The queue, a NATS server with JetStream: nats://HOST or tls://HOST, several with commas
    #[arg(long, value_name = "URL")]
    pub queue: String,

    /// How it is entered.
    #[command(flatten)]
    pub entry: EntryOptions,
}

/// How a queue is entered.
#[derive(Debug, Clone, Default, Args)]
pub struct EntryOptions {
    /// File with the queue's credentials
    #[arg(long, value_name = "FILE")]
    pub queue_creds: Option<PathBuf>,

    /// Certificate that the queue's is signed with, besides the system's
    #[arg(long, value_name = "FILE")]
    pub queue_ca: Option<PathBuf>,

    /// Certificate to show the queue, with --queue-key
    #[arg(long, value_name = "FILE", requires = "queue_key")]
    pub queue_cert: Option<PathBuf>,

    /// Key of --queue-cert
    #[arg(long, value_name = "FILE", requires = "queue_cert")]
    pub queue_key: Option<PathBuf>,
}

/// A queue that was reached.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Plain messages.
    pub client: Client,
    /// Streams and buckets.
    pub jetstream: Context,
}

impl Queue {
    /// Reaches a queue, which is tried for a while, and makes what is missing in it. Later it may go away and
    /// come back.
    ///
    /// # Errors
    /// Nobody answers there, or not to us; a server without JetStream, or without room for its streams.
    pub async fn connect(options: &QueueOptions, who: &str) -> Result<Self> {
        let queue = &options.queue;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let addresses = addresses(queue)?;
        let tls = queue.contains("tls://");
        let connecting = options.entry.apply(tls).await?.name(who);
        let client = connecting.connect(addresses).await.map_err(|error| {
            Error::Failed(format!(
                "cannot reach the queue at {queue}: {error}; nats-server -js -sd ./queue starts one"
            ))
        })?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(PATIENCE);
        let reached = Self { client, jetstream };
        reached.ensure().await?;
        Ok(reached)
    }
}

/// The addresses of a list, each of a kind that is known; those without a kind are `nats://`.
fn addresses(list: &str) -> Result<Vec<async_nats::ServerAddr>> {
    let wrong = |text: &str, problem: &str| {
        let shown = brisk_store::shown_within(text, 80);
        Error::Usage(format!(
            "--queue {shown}: {problem}; expected nats://HOST[:PORT] or tls://HOST[:PORT]"
        ))
    };
    let read = list.split(',').map(|address| {
        let address = address.trim();
        if let Some((scheme, _)) = address.split_once("://")
            && !["nats", "tls"].contains(&scheme)
        {
            return Err(wrong(address, "is no address of a queue"));
        }
        let parsed: async_nats::ServerAddr = address
            .parse()
            .map_err(|error: std::io::Error| wrong(address, &error.to_string()))?;
        if parsed.host().is_empty() {
            return Err(wrong(address, "names no host"));
        }
        Ok(parsed)
    });
    read.collect()
}

impl EntryOptions {
    async fn apply(&self, tls: bool) -> Result<ConnectOptions> {
        let readable = |option: &str, path: &Option<PathBuf>| match path {
            Some(path) => std::fs::read(path)
                .map(drop)
                .map_err(|error| Error::Usage(format!("--{option} {}: {error}", path.display()))),
            None => Ok(()),
        };
        for (option, path) in [
            ("queue-ca", &self.queue_ca),
            ("queue-cert", &self.queue_cert),
            ("queue-key", &self.queue_key),
        ] {
            readable(option, path)?;
        }
        let mut options = ConnectOptions::new()
            .require_tls(tls)
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .reconnect_delay_callback(|tries| {
                MOST_APART.min(Duration::from_millis(100 * tries.min(100) as u64))
            })
            .event_callback(|event| async move {
                match event {
                    Event::Connected => tracing::debug!("the queue is there"),
                    Event::Disconnected => tracing::warn!("the queue is away"),
                    event => tracing::debug!(%event, "queue"),
                }
            });
        if let Some(path) = &self.queue_creds {
            let unusable = |error: std::io::Error| {
                Error::Usage(format!("--queue-creds {}: {error}", path.display()))
            };
            options = options.credentials_file(path).await.map_err(unusable)?;
        }
        if let Some(path) = &self.queue_ca {
            options = options.add_root_certificates(path.clone());
        }
        if let (Some(certificate), Some(key)) = (&self.queue_cert, &self.queue_key) {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_queues_are_told_from_others() {
        assert_eq!(addresses("nats://a:1, tls://b").unwrap().len(), 2);
        assert_eq!(addresses("127.0.0.1").unwrap().len(), 1);
        for wrong in ["http://a", "nats://", "redis://x"] {
            let error = addresses(wrong).unwrap_err().to_string();
            assert!(error.starts_with("--queue "), "{error}");
        }
    }
}
