//! Where results go: a folder, or a bucket of a cloud. A file is there whole or not at all, and what is there
//! is never written over.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::error::{Error, Result, is_full};

/// A place for results.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// As it was given.
    name: String,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    Bucket {
        store: Arc<dyn ObjectStore>,
        prefix: Key,
    },
}

impl Outputs {
    /// A folder, or with the feature `clouds` `s3://BUCKET/PREFIX`, `gs://…` or `az://CONTAINER/…` by the clouds' own
    /// variables of the environment.
    ///
    /// # Errors
    /// Another kind of address, or a cloud whose variables say nothing useful.
    pub fn open(name: &str) -> Result<Self> {
        let place = match name.split_once("://") {
            None => Place::Folder(name.into()),
            Some((scheme, rest)) => bucket(name, scheme, rest)?,
        };
        Ok(Self {
            name: name.to_owned(),
            place,
        })
    }

    /// A store of any kind.
    #[cfg(test)]
    fn of_store(name: &str, store: Arc<dyn ObjectStore>) -> Self {
        Self {
            name: name.to_owned(),
            place: Place::Bucket {
                store,
                prefix: Key::default(),
            },
        }
    }

    /// As it was given; a folder with its whole path.
    pub fn name(&self) -> String {
        match &self.place {
            Place::Folder(folder) => std::path::absolute(folder)
                .unwrap_or_else(|_| folder.clone())
                .display()
                .to_string(),
            Place::Bucket { .. } => self.name.clone(),
        }
    }

    /// Makes the folder where there is none, and sees to it that files can be written.
    ///
    /// # Errors
    /// They cannot.
    pub async fn prepare(&self) -> Result<()> {
        let Place::Folder(folder) = &self.place else {
            return Ok(());
        };
        let folder = folder.clone();
        blocking(move || {
            make_folder(&folder)?;
            let probe = folder.join(format!(".brisk-{}", std::process::id()));
            brisk_store::write_atomic(&probe, b"").map_err(of_store)?;
            std::fs::remove_file(&probe).map_err(|error| of_io(&probe, &error))
        })
        .await
    }

    /// A file's bytes, where it is there.
    ///
    /// # Errors
    /// The place cannot be read.
    pub async fn read(&self, path: &str) -> Result<Option<Bytes>> {
        match &self.place {
            Place::Folder(folder) => {
                let path = folder.join(path);
                blocking(move || match std::fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes.into())),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(of_io(&path, &error)),
                })
                .await
            }
            Place::Bucket { store, prefix } => {
                let read = async { store.get(&key(prefix, path)).await?.bytes().await };
                match read.await {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(self.of_cloud(&error)),
                }
            }
        }
    }

    /// Writes a file unless one of its name is there; false where one is.
    ///
    /// # Errors
    /// The place cannot be written; [`Error::NoRoom`] where it is full.
    pub async fn put_new(&self, path: &str, bytes: Bytes) -> Result<bool> {
        match &self.place {
            Place::Folder(folder) => write(folder.join(path), bytes, brisk_store::write_new).await,
            Place::Bucket { store, prefix } => {
                let options = PutOptions::from(PutMode::Create);
                let payload = PutPayload::from(bytes);
                match store.put_opts(&key(prefix, path), payload, options).await {
                    Ok(_) => Ok(true),
                    Err(
                        object_store::Error::AlreadyExists { .. }
                        | object_store::Error::Precondition { .. },
                    ) => Ok(false),
                    Err(error) => Err(self.of_cloud(&error)),
                }
            }
        }
    }

    /// Writes a report, in place of an older one.
    ///
    /// # Errors
    /// As [`put_new`](Self::put_new).
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        match &self.place {
            Place::Folder(folder) => {
                write(folder.join(path), bytes, brisk_store::write_atomic).await
            }
            Place::Bucket { store, prefix } => {
                let put = store.put(&key(prefix, path), bytes.into()).await;
                put.map(drop).map_err(|error| self.of_cloud(&error))
            }
        }
    }

    /// The files of a batch, as paths below its folder.
    ///
    /// # Errors
    /// The place cannot be read.
    pub async fn list(&self, batch: &str) -> Result<HashSet<String>> {
        match &self.place {
            Place::Folder(folder) => {
                let folder = folder.join(batch);
                blocking(move || listed(&folder)).await
            }
            Place::Bucket { store, prefix } => {
                let folder = key(prefix, batch);
                let below = folder.clone();
                let found = store.list(Some(&folder)).map_ok(move |object| {
                    let parts = object.location.prefix_match(&below);
                    parts.map(|parts| {
                        let parts: Vec<String> =
                            parts.map(|part| part.as_ref().to_owned()).collect();
                        parts.join("/")
                    })
                });
                let found: Vec<Option<String>> = found
                    .try_collect()
                    .await
                    .map_err(|error| self.of_cloud(&error))?;
                Ok(found.into_iter().flatten().collect())
            }
        }
    }

    fn of_cloud(&self, error: &object_store::Error) -> Error {
        Error::Failed(format!("{}: {error}", self.name))
    }
}

fn key(prefix: &Key, path: &str) -> Key {
    Key::from_iter(prefix.parts().chain(Key::from(path).parts()))
}

fn bucket(name: &str, scheme: &str, rest: &str) -> Result<Place> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(Error::Usage(format!(
            "--out {name}: names no bucket; expected {scheme}://BUCKET/FOLDER"
        )));
    }
    if !["s3", "gs", "az"].contains(&scheme) {
        return Err(Error::Usage(format!(
            "--out {name}: results do not go to {scheme}://; expected a folder, s3://, gs:// or az://"
        )));
    }
    let store = cloud(name, scheme)?;
    let prefix =
        Key::parse(prefix).map_err(|error| Error::Usage(format!("--out {name}: {error}")))?;
    Ok(Place::Bucket { store, prefix })
}

/// The store of a cloud, by the variables of the environment that its own tools read.
#[cfg(feature = "clouds")]
fn cloud(name: &str, scheme: &str) -> Result<Arc<dyn ObjectStore>> {
    let unusable = |error: object_store::Error| Error::Usage(format!("--out {name}: {error}"));
    // The one library of cryptography that this program has; another caller may have named it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(match scheme {
        "s3" => {
            let builder = object_store::aws::AmazonS3Builder::from_env();
            Arc::new(builder.with_url(name).build().map_err(unusable)?)
        }
        "gs" => {
            let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env();
            Arc::new(builder.with_url(name).build().map_err(unusable)?)
        }
        _ => {
            let builder = object_store::azure::MicrosoftAzureBuilder::from_env();
            Arc::new(builder.with_url(name).build().map_err(unusable)?)
        }
    })
}

#[cfg(not(feature = "clouds"))]
fn cloud(name: &str, _scheme: &str) -> Result<Arc<dyn ObjectStore>> {
    Err(Error::Usage(format!(
        "--out {name}: this brisk was built without clouds; give a folder, or build it with cargo build --release \
         --features brisk-cli/clouds"
    )))
}

fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| of_io(folder, &error))
}

/// Writes a file by `how`, with the folders above it.
async fn write<T: Send + 'static>(
    path: PathBuf,
    bytes: Bytes,
    how: fn(&Path, &[u8]) -> brisk_store::Result<T>,
) -> Result<T> {
    blocking(move || {
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        how(&path, &bytes).map_err(of_store)
    })
    .await
}

fn of_io(path: &Path, error: &std::io::Error) -> Error {
    let message = format!("{}: {error}", path.display());
    match is_full(error) {
        true => Error::NoRoom(message),
        false => Error::Failed(message),
    }
}

fn of_store(error: brisk_store::Error) -> Error {
    match &error {
        brisk_store::Error::Io { source, .. } if is_full(source) => {
            Error::NoRoom(error.to_string())
        }
        _ => Error::Failed(error.to_string()),
    }
}

/// Files two folders deep: `{2 hex}/{name}`. Hidden ones are nobody's results.
fn listed(folder: &Path) -> Result<HashSet<String>> {
    let mut found = HashSet::new();
    let names = |folder: &Path| -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Vec::new());
            }
            Err(error) => return Err(of_io(folder, &error)),
        };
        let names = entries.map(|entry| {
            let entry = entry.map_err(|error| of_io(folder, &error))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        });
        names.collect()
    };
    for inner in names(folder)? {
        for name in names(&folder.join(&inner))? {
            if !name.starts_with('.') {
                found.insert(format!("{inner}/{name}"));
            }
        }
    }
    Ok(found)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::Failed("writing results failed".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn behaves(outputs: &Outputs) {
        outputs.prepare().await.unwrap();
        assert!(outputs.list("b").await.unwrap().is_empty());
        assert_eq!(outputs.read("b/aa/x.png").await.unwrap(), None);
        let put = |bytes: &'static [u8]| outputs.put_new("b/aa/x.png", Bytes::from_static(bytes));
        assert!(put(b"first").await.unwrap());
        assert!(!put(b"second").await.unwrap());
        let read = outputs.read("b/aa/x.png").await.unwrap();
        assert_eq!(read.as_deref(), Some(&b"first"[..]));
        outputs.put("b/aa/r", "one".into()).await.unwrap();
        outputs.put("b/aa/r", "two".into()).await.unwrap();
        let found = outputs.list("b").await.unwrap();
        assert_eq!(found, HashSet::from(["aa/x.png".into(), "aa/r".into()]));
        let read = outputs.read("b/aa/r").await.unwrap();
        assert_eq!(read.as_deref(), Some(&b"two"[..]));
    }

    #[tokio::test]
    async fn a_folder_and_a_store_behave_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        behaves(&Outputs::open(path.to_str().unwrap()).unwrap()).await;
        let store = Arc::new(object_store::memory::InMemory::new());
        behaves(&Outputs::of_store("memory", store)).await;
    }

    #[test]
    fn other_places_are_refused() {
        for (name, word) in [
            ("ftp://x/y", "ftp"),
            ("s3://", "names no bucket"),
            ("gs:///x", "names no bucket"),
            #[cfg(not(feature = "clouds"))]
            ("s3://x/y", "built without clouds"),
        ] {
            let error = Outputs::open(name).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
