//! What can go wrong with a data set.

use std::path::PathBuf;

use super::pictures::PictureSet;

/// What can go wrong with a data set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A source file is not what the package should hold.
    #[error("{path}: {reason}; expected a file of the npm package {package}, unpacked")]
    Source {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The npm package that it should come from.
        package: String,
    },
    /// An icon cannot be rendered.
    #[error("{set} icon {icon:?}: {source}")]
    Render {
        /// Which set.
        set: PictureSet,
        /// The icon's name in the set.
        icon: String,
        /// The cause.
        source: brisk_media::Error,
    },
    /// The data set file is not one that was prepared.
    #[error("{path}: {reason}; prepare it again")]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A source or the data set file cannot be read or written.
    #[error(transparent)]
    Store(#[from] brisk_store::Error),
    /// A picture cannot be read.
    #[error(transparent)]
    Media(#[from] brisk_media::Error),
    /// A picture or its caption cannot be used.
    #[error("{path}: {reason}")]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The data set would not fit into memory.
    #[error(
        "{pictures} pictures take {needed} MiB of memory and {available} MiB are available; make them smaller or fewer"
    )]
    Memory {
        /// Pictures of the data set.
        pictures: usize,
        /// What they take, in MiB.
        needed: u64,
        /// What is free, in MiB.
        available: u64,
    },
    /// The requested size is out of range.
    #[error("a picture size of {0} pixels; it must be 8 to 1024")]
    Size(usize),
    /// The requested size cannot be that of pictures of several shapes.
    #[error("a size of {0} pixels with --aspect-buckets; it must be a multiple of 32")]
    BucketSize(usize),
    /// Pictures of several shapes where all have to be alike.
    #[error(
        "pictures of {count} shapes ({some}, ...); expected square ones of one size, as they are prepared without \
         --aspect-buckets"
    )]
    Shapes {
        /// How many shapes.
        count: usize,
        /// Some of them.
        some: String,
    },
}

/// The result of making or reading a data set.
pub(super) type Result<T> = std::result::Result<T, DataError>;
