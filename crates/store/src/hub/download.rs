//! Downloading a model into the cache.
//!
//! Files go straight into `snapshots/<commit>/`, each through a `.incomplete` file that a later try
//! goes on with; the reference is written last, so an interrupted download is never taken for a model.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use ureq::Body;
use ureq::http::Response;

use super::cache::model_folder;
use super::client::{Client, Failure, Listing, Sibling};
use super::id::{ModelId, is_commit};
use super::select::needed;
use super::space::check_space;
use super::{HubOptions, HubProgress};
use crate::folder::check_relative;
use crate::output::FolderLock;
use crate::{Error, Result, write_atomic};

/// Settings that belong to the weights beside them.
const SETTINGS: [&str; 2] = ["adapter_config.json", "config.json"];
/// Most files that a model may need.
const MAX_FILES: usize = 10_000;
/// Most bytes of a file whose size nobody announces.
const MAX_UNANNOUNCED: u64 = 256 << 20;

/// Fetches what a model needs; gives the snapshot's folder. With `newest`, what the cache holds of the
/// revision is not enough.
pub(super) fn download(
    id: &ModelId,
    options: &HubOptions,
    progress: &dyn HubProgress,
    newest: bool,
) -> Result<PathBuf, Failure> {
    let client = Client::new(id, options, progress)?;
    let listing = client.list()?;
    let wanted = wanted(id, options, &listing)?;

    let model = model_folder(id, &options.cache);
    create_folder(&model)?;
    let _lock = lock(&model, id, progress)?;
    if !newest && let Ok(folder) = super::cached(id, options) {
        return Ok(folder); // whoever held the lock has fetched it
    }
    let total = wanted
        .iter()
        .try_fold(0u64, |sum, file| sum.checked_add(file.size?));
    let snapshot = model.join("snapshots").join(&listing.sha);
    create_folder(&snapshot)?;
    check_space(&snapshot, &wanted)?;
    progress.begin(&id.to_string(), wanted.len(), total);
    for file in wanted {
        progress.file(&file.rfilename, file.size);
        let job = FileJob {
            client: &client,
            progress,
            file,
            url: client.address(&listing.sha, &file.rfilename),
        };
        // The hub was there, so nothing older may stand in for what it has.
        job.fetch(&snapshot).map_err(Failure::settled)?;
    }
    if !is_commit(&id.revision) {
        let reference = model.join("refs").join(&id.revision);
        create_folder(reference.parent().unwrap_or(&model))?;
        write_atomic(&reference, listing.sha.as_bytes())?;
    }
    progress.end();
    Ok(snapshot)
}

/// The files to fetch, their names checked.
fn wanted<'a>(
    id: &ModelId,
    options: &HubOptions,
    listing: &'a Listing,
) -> Result<Vec<&'a Sibling>> {
    let names: Vec<String> = listing
        .siblings
        .iter()
        .map(|file| file.rfilename.clone())
        .collect();
    let needed = match &id.file {
        Some(file) if names.contains(file) => with_settings(file, &names),
        Some(file) => {
            let weights = names.iter().filter(|name| crate::folder::is_weights(name));
            let shown: Vec<&str> = weights.take(12).map(String::as_str).collect();
            return Err(Error::Hub(format!(
                "{id} has no file {file}; its weights files: {}",
                shown.join(", ")
            )));
        }
        None => needed(&names, options.variant.as_deref()),
    };
    if needed.is_empty() {
        return Err(Error::Hub(format!(
            "{id} has no model files on {}",
            options.endpoint
        )));
    }
    if needed.len() > MAX_FILES {
        return Err(Error::Hub(format!(
            "{id} lists {} files; no model needs more than {MAX_FILES}",
            needed.len()
        )));
    }
    for name in &needed {
        check_relative(name).map_err(|_| {
            Error::Hub(format!(
                "{id} lists {name:?}, which is not a file name inside a folder"
            ))
        })?;
    }
    let mut by_name: BTreeMap<&str, &Sibling> = BTreeMap::new();
    for file in &listing.siblings {
        by_name.entry(&file.rfilename).or_insert(file);
    }
    let files = needed.iter().filter_map(|name| by_name.get(name.as_str()));
    Ok(files.copied().collect())
}

/// A file of weights with the settings beside it, without which its numbers may mean something else: PEFT's
/// files leave a LoRA's strength to theirs.
fn with_settings(file: &str, names: &[String]) -> Vec<String> {
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let beside = |name: &&String| {
        let (place, own) = name.rsplit_once('/').unwrap_or(("", name));
        place == folder && SETTINGS.contains(&own)
    };
    let settings = names.iter().filter(beside).cloned();
    std::iter::once(file.to_owned()).chain(settings).collect()
}

/// Refuses to write through a link in a snapshot that leads out of it.
fn stays_inside(snapshot: &Path, folder: &Path) -> Result<()> {
    let real = |path: &Path| {
        path.canonicalize()
            .map_err(|error| Error::io("open", path, error))
    };
    let (outer, inner) = (real(snapshot)?, real(folder)?);
    if inner.starts_with(&outer) {
        return Ok(());
    }
    Err(Error::Hub(format!(
        "{} leads out of the cache, to {}; nothing is written there: remove the link",
        folder.display(),
        inner.display()
    )))
}

fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, error))
}

/// Keeps two downloads of one model from writing the same files.
fn lock(model: &Path, id: &ModelId, progress: &dyn HubProgress) -> Result<FolderLock> {
    let mut told = false;
    FolderLock::wait(model, |holder| {
        if !told {
            told = true;
            progress.note(&format!(
                "another brisk downloads {id} ({holder}, which locks {}); waiting until it is done",
                model.display()
            ));
        }
        !progress.stopped()
    })
}

/// One file on its way into the cache.
struct FileJob<'a> {
    client: &'a Client<'a>,
    progress: &'a dyn HubProgress,
    file: &'a Sibling,
    url: String,
}

impl FileJob<'_> {
    fn fetch(&self, snapshot: &Path) -> Result<(), Failure> {
        let target = snapshot.join(&self.file.rfilename);
        if let Ok(metadata) = std::fs::metadata(&target)
            && metadata.is_file()
            && self.file.size.is_none_or(|size| size == metadata.len())
        {
            self.progress.advance(metadata.len());
            return Ok(());
        }
        let folder = target.parent().unwrap_or(snapshot);
        create_folder(folder)?;
        stays_inside(snapshot, folder)?;
        let mut partial = Partial::open(&target, self.file.size)?;
        self.progress.advance(partial.have);
        self.client.again(|| {
            if self.file.size.is_none_or(|size| partial.have < size) {
                self.rest(&mut partial)?;
            }
            self.check(&mut partial)
        })?;
        partial.finish(&target)?;
        Ok(())
    }

    /// One request for the bytes that are not there yet.
    fn rest(&self, partial: &mut Partial) -> Result<(), Failure> {
        let mut response = self.client.get(&self.url, partial.have)?;
        let whole = response.status().as_u16() == 200;
        if whole && partial.have > 0 {
            self.restart(partial)?; // everything comes again
        }
        if !whole && !self.is_the_rest(&response, partial.have) {
            self.restart(partial)?;
            return Err(self
                .client
                .lost(&self.url, "the server sent another part than was asked for"));
        }
        let announced = response
            .body()
            .content_length()
            .map(|length| length.saturating_add(partial.have));
        let most = self.file.size.or(announced).unwrap_or(MAX_UNANNOUNCED);
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            self.client.check_stopped()?;
            let read = body
                .read(&mut buffer)
                .map_err(|error| self.client.lost(&self.url, &error.to_string()))?;
            if read == 0 {
                break;
            }
            if partial.have.saturating_add(read as u64) > most {
                partial.discard();
                let announced = match self.file.size.or(announced) {
                    Some(size) => format!("more than the {size} bytes it was listed with"),
                    None => format!("more than {most} bytes without announcing how many"),
                };
                let problem = format!("{} sends {announced}", self.url);
                return Err(Error::Hub(problem).into());
            }
            partial.append(&buffer[..read])?;
            self.progress.advance(read as u64);
        }
        match self.file.size.or(announced) {
            Some(expected) if partial.have != expected => {
                let problem = format!("{} of {expected} bytes arrived", partial.have);
                Err(self.client.lost(&self.url, &problem))
            }
            _ => Ok(()),
        }
    }

    /// Whether a partial answer holds the bytes from `have` on, and says so.
    fn is_the_rest(&self, response: &Response<Body>, have: u64) -> bool {
        let range = response
            .headers()
            .get("content-range")
            .and_then(|value| value.to_str().ok())
            .and_then(content_range);
        range.is_some_and(|(start, total)| {
            start == have
                && (self.file.size.is_none() || total.is_none() || total == self.file.size)
        })
    }

    /// Compares a whole file with what the listing says of it.
    fn check(&self, partial: &mut Partial) -> Result<(), Failure> {
        let Some(expected) = self.file.sha256() else {
            return Ok(());
        };
        let found = partial.sha256()?;
        if found == expected {
            return Ok(());
        }
        self.restart(partial)?;
        Err(Failure::Lost(Error::Hub(format!(
            "{} arrived with SHA-256 {found}, expected {expected}; it was removed. Something between here \
             and the hub changes files (a proxy, a damaged disk): try again",
            self.url
        ))))
    }

    fn restart(&self, partial: &mut Partial) -> Result<()> {
        self.progress.retract(partial.have);
        partial.clear()
    }
}

/// Start of `bytes START-END/TOTAL`, and the total where it is known.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

/// A file that is not whole yet. It stays when the download stops, for the next try.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    /// Bytes that are there.
    have: u64,
}

impl Partial {
    /// Where the bytes of `target` are until it is whole.
    pub(super) fn path(target: &Path) -> PathBuf {
        let mut name = std::ffi::OsString::from("."); // hidden: a half file is never one of the model's
        name.push(target.file_name().unwrap_or_default());
        name.push(".incomplete");
        target.with_file_name(name)
    }

    /// Opens what an earlier try left, if it can be gone on with.
    fn open(target: &Path, size: Option<u64>) -> Result<Self> {
        let path = Self::path(target);
        let fail = |error| Error::io("write", &path, error);
        remove_link(&path)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(fail)?;
        let found = file.metadata().map_err(fail)?.len();
        let mut partial = Self {
            path,
            file,
            have: found,
        };
        // Without a known size nothing tells a whole partial file from a half one.
        if size.is_none_or(|size| found > size) {
            partial.clear()?;
        }
        partial.seek(partial.have)?;
        Ok(partial)
    }

    fn seek(&mut self, to: u64) -> Result<()> {
        self.file
            .seek(SeekFrom::Start(to))
            .map(drop)
            .map_err(|error| Error::io("write", &self.path, error))
    }

    fn clear(&mut self) -> Result<()> {
        self.have = 0;
        self.file
            .set_len(0)
            .map_err(|error| Error::io("write", &self.path, error))?;
        self.seek(0)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| {
            if error.kind() == std::io::ErrorKind::StorageFull {
                return Error::Hub(format!(
                    "the disk of {} is full; what has arrived is kept: make room and run the same command again, \
                     or set HF_HOME to another disk",
                    self.path.display()
                ));
            }
            Error::io("write", &self.path, error)
        })?;
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// SHA-256 of all that is there, in lower case hexadecimal.
    fn sha256(&mut self) -> Result<String> {
        self.seek(0)?;
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = self
                .file
                .read(&mut buffer)
                .map_err(|error| Error::io("read", &self.path, error))?;
            if read == 0 {
                break;
            }
            context.update(&buffer[..read]);
        }
        let digest = context.finish();
        Ok(digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }

    /// Removes what nobody will go on with.
    fn discard(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// Gives the file its name.
    fn finish(self, target: &Path) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| Error::io("write", &self.path, error))?;
        // A link into another tool's blobs that is broken or of the wrong size.
        remove_link(target)?;
        std::fs::rename(&self.path, target).map_err(|error| Error::io("write", target, error))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Nothing of it is worth going on with.
        if self.have == 0 {
            self.discard();
        }
    }
}

/// Removes a link, so that what it points to is not written.
fn remove_link(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => {
            std::fs::remove_file(path).map_err(|error| Error::io("replace", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_or_not_believed() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range(" bytes 0-4/*"), Some((0, None)));
        for text in [
            "",
            "bytes */10",
            "bytes 5/10",
            "items 5-9/10",
            "bytes -5-9/10",
        ] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
