//! The queue: NATS JetStream, and what of brisk's lies in it.
//!
//! Nothing in it is the truth: it may lose what it was given, and the file of requests with the results that
//! exist says what is left to do.

mod connect;
mod job;
mod layout;
mod pictures;
mod records;
mod workers;

pub use connect::{EntryOptions, Queue, QueueOptions};
pub use job::{Class, Dead, Item, Job, MOST_BYTES, MOST_ITEMS, Tries, now};
pub use layout::{CANCEL, DEAD, JOBS, LIVE};
pub use records::Records;
pub use workers::{AnnouncedModel, Announcement, Manifest, models, speed};
