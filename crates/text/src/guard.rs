//! The tokenizer library panics at some malformed files; here that becomes an error.

pub(crate) use brisk_store::guard::guarded;
pub use brisk_store::guard::is_guarded;
