//! A model's folder, on disk or compiled into the program.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::impostor::impostor;
use crate::json::parse_json;
use crate::open::{Format, START, detect, index_as_shard, open_shard};
use crate::read::{Limit, read, text, without_mark};
use crate::sharded::is_bare_file_name;
use crate::{Error, PickleFile, Result, SafetensorsFile, ShardedSource, TensorSource, unwrapped};

/// Deepest folder that is listed.
const MAX_LIST_DEPTH: usize = 8;
/// Weight file names of diffusers and transformers without their extension; averaged weights go before those
/// that they average.
const STEMS: [&str; 5] = [
    "ema_model",
    "diffusion_pytorch_model",
    "model",
    "pytorch_lora_weights",
    "pytorch_model",
];

/// A model's files. Names inside are relative, with `/`, and cannot leave the folder.
#[derive(Clone, Debug)]
pub enum ModelFolder {
    /// A folder on disk.
    Disk(PathBuf),
    /// Files compiled into the program.
    Embedded {
        /// Stands for the folder's name in messages.
        label: &'static str,
        /// Relative name and bytes.
        files: &'static [(&'static str, &'static [u8])],
    },
}

impl ModelFolder {
    /// True when there is such a file.
    pub fn exists(&self, relative: &str) -> bool {
        if check_relative(relative).is_err() {
            return false;
        }
        match self {
            Self::Disk(folder) => folder.join(relative).is_file(),
            Self::Embedded { files, .. } => files.iter().any(|(name, _)| *name == relative),
        }
    }

    /// The bytes of a configuration, tokenizer or text, without a byte order mark; at most 256 MiB from
    /// disk.
    pub fn read(&self, relative: &str) -> Result<Cow<'static, [u8]>> {
        check_relative(relative)?;
        match self {
            Self::Disk(folder) => {
                let path = folder.join(relative);
                if !path.exists() {
                    return Err(self.no_such(relative));
                }
                if !path.is_file() {
                    // Opening a pipe could block.
                    return Err(Error::missing(
                        path.display().to_string(),
                        "not a regular file",
                    ));
                }
                let mut bytes = read(&path, Limit::MODEL_FILE)?;
                let mark = bytes.len() - without_mark(&bytes).len();
                bytes.drain(..mark);
                Ok(Cow::Owned(bytes))
            }
            Self::Embedded { .. } => {
                let bytes = self.embedded(relative)?;
                match impostor(bytes) {
                    Some(what) => Err(Error::malformed(&self.place(relative), what)),
                    None => Ok(Cow::Borrowed(without_mark(bytes))),
                }
            }
        }
    }

    /// A text file, with plain line ends.
    pub fn read_text(&self, relative: &str) -> Result<String> {
        let bytes = self.read(relative)?;
        text(&bytes, &self.place(relative)).map(Cow::into_owned)
    }

    /// A JSON file.
    pub fn read_json(&self, relative: &str) -> Result<serde_json::Value> {
        parse_json(&self.read(relative)?, &self.place(relative))
    }

    /// All files, relative with `/`, sorted. Linked folders and hidden ones are not entered.
    pub fn list(&self) -> Vec<String> {
        let mut names = Vec::new();
        match self {
            Self::Disk(folder) => list_into(folder, "", 0, &mut names),
            Self::Embedded { files, .. } => {
                names.extend(files.iter().map(|(name, _)| (*name).to_owned()));
            }
        }
        names.sort();
        names
    }

    /// Bytes of a file; links count as what they point to.
    pub fn size(&self, relative: &str) -> Option<u64> {
        check_relative(relative).ok()?;
        match self {
            Self::Disk(folder) => Some(std::fs::metadata(folder.join(relative)).ok()?.len()),
            Self::Embedded { .. } => Some(self.embedded(relative).ok()?.len() as u64),
        }
    }

    /// The folder's path or label, for messages.
    pub fn label(&self) -> String {
        match self {
            Self::Disk(folder) => folder.display().to_string(),
            Self::Embedded { label, .. } => (*label).to_owned(),
        }
    }

    /// A component's weights from the subfolder `sub` (empty: the folder itself).
    ///
    /// Looks for the names diffusers and transformers use, one file or sharded, first with the variant
    /// (`.fp16`), then without it: repositories that never had the variant keep plain names. Without a
    /// variant asked for, a folder that holds only bf16 or fp16 files is read all the same.
    /// Averaged weights (`ema_model`) go before others, safetensors before `.bin`. Where there is none of
    /// these names, the folder's one weights file is taken: authors give theirs names of their own.
    /// Prefixes of training wrappers are taken off ([`unwrapped`]).
    pub fn open_component(
        &self,
        sub: &str,
        variant: Option<&str>,
    ) -> Result<Arc<dyn TensorSource>> {
        self.open_weights(sub, variant, true)
    }

    /// As [`Self::open_component`], of weights as they were trained last: averaged ones are left alone.
    pub fn open_trained(&self, sub: &str, variant: Option<&str>) -> Result<Arc<dyn TensorSource>> {
        self.open_weights(sub, variant, false)
    }

    fn open_weights(
        &self,
        sub: &str,
        variant: Option<&str>,
        averaged: bool,
    ) -> Result<Arc<dyn TensorSource>> {
        if let Some(variant) = variant
            && !is_bare_file_name(variant)
        {
            return Err(Error::Invalid(format!(
                "{variant:?} is not the name of a variant"
            )));
        }
        for file in component_files(variant, averaged) {
            let relative = if sub.is_empty() {
                file
            } else {
                format!("{sub}/{file}")
            };
            if self.exists(&relative) {
                return unwrapped(self.open(&relative)?);
            }
        }
        let beginning = if sub.is_empty() {
            String::new()
        } else {
            format!("{sub}/")
        };
        let mut found: Vec<String> = self.list();
        found.retain(|name| name.starts_with(&beginning));
        let inside = |name: &&String| {
            let own = &name[beginning.len()..];
            !own.contains('/') && (averaged || !own.starts_with(STEMS[0]))
        };
        let problem = match only_weights(found.iter().filter(inside).cloned().collect()) {
            Ok(one) => return unwrapped(self.open(&one)?),
            Err(several) if several.is_empty() => "no weights".to_owned(),
            Err(several) => format!("{} weights files of other names", several.len()),
        };
        found.truncate(12);
        Err(Error::missing(
            self.place(sub),
            format!(
                "{problem}: expected one of {} (.safetensors, .safetensors.index.json or .bin), or \
                 a single file of another name, found {}",
                STEMS[usize::from(!averaged)..].join(", "),
                if found.is_empty() {
                    "no files".to_owned()
                } else {
                    found.join(", ")
                }
            ),
        ))
    }

    /// One weights file by its relative name: safetensors, shard index or PyTorch checkpoint.
    pub fn open(&self, relative: &str) -> Result<Arc<dyn TensorSource>> {
        self.open_as(relative, true)
    }

    fn open_as(&self, relative: &str, may_be_index: bool) -> Result<Arc<dyn TensorSource>> {
        check_relative(relative)?;
        if let Self::Disk(folder) = self {
            let path = folder.join(relative);
            return match may_be_index {
                true => crate::open_weights(&path),
                false => open_shard(&path),
            };
        }
        let bytes = self.embedded(relative)?;
        let label = self.place(relative);
        Ok(match detect(&bytes[..bytes.len().min(START)], &label)? {
            Format::Safetensors => Arc::new(SafetensorsFile::from_static(bytes, label)?),
            Format::Pickle => Arc::new(PickleFile::from_static(bytes, label)?),
            Format::Index if !may_be_index => return Err(index_as_shard(&label)),
            Format::Index => {
                let folder = relative.rsplit_once('/').map_or("", |(folder, _)| folder);
                Arc::new(ShardedSource::from_index(bytes, &label, |shard| {
                    let shard = if folder.is_empty() {
                        shard.to_owned()
                    } else {
                        format!("{folder}/{shard}")
                    };
                    if self.exists(&shard) {
                        self.open_as(&shard, false).map(Some)
                    } else {
                        Ok(None)
                    }
                })?)
            }
        })
    }

    fn embedded(&self, relative: &str) -> Result<&'static [u8]> {
        match self {
            Self::Embedded { files, .. } => files
                .iter()
                .find(|(name, _)| *name == relative)
                .map(|(_, bytes)| *bytes)
                .ok_or_else(|| self.no_such(relative)),
            Self::Disk(_) => Err(self.no_such(relative)),
        }
    }

    fn no_such(&self, relative: &str) -> Error {
        Error::missing(
            self.label(),
            format!("there is no {relative}; is this the model's folder, and is it complete?"),
        )
    }

    fn place(&self, relative: &str) -> String {
        match (self, relative) {
            (_, "") => self.label(),
            (Self::Disk(folder), _) => folder.join(relative).display().to_string(),
            (Self::Embedded { label, .. }, _) => format!("{label}/{relative}"),
        }
    }
}

/// File names of a component's weights, best first.
fn component_files(variant: Option<&str>, averaged: bool) -> Vec<String> {
    let mut files = Vec::new();
    // Some repositories (SANA at 2K and 4K) hold nothing but one variant.
    let only: &[Option<&str>] = match variant {
        Some(_) => &[],
        None => &[Some("bf16"), Some("fp16")],
    };
    let asked = variant.map(Some).into_iter().chain([None]);
    for variant in asked.chain(only.iter().copied()) {
        let dot = variant
            .map(|variant| format!(".{variant}"))
            .unwrap_or_default();
        let (average, others) = STEMS.split_at(1);
        for stems in [if averaged { average } else { &[] }, others] {
            for stem in stems {
                files.push(format!("{stem}{dot}.safetensors"));
                files.push(format!("{stem}.safetensors.index{dot}.json"));
                if variant.is_some() {
                    files.push(format!("{stem}{dot}.safetensors.index.json"));
                }
            }
            for stem in stems {
                files.push(format!("{stem}{dot}.bin"));
                files.push(format!("{stem}.bin.index{dot}.json"));
            }
        }
    }
    files
}

/// Whether a file's name says that it holds weights.
pub(crate) fn is_weights(name: &str) -> bool {
    [".safetensors", ".bin", ".pth", ".pt"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

/// The weights file among `files`, else all of them, sorted; safetensors goes before pickles, and what
/// trainers keep beside their model counts for nothing, like the map that makes its previews.
pub(crate) fn only_weights(mut files: Vec<String>) -> std::result::Result<String, Vec<String>> {
    let is_kept = |file: &String| {
        let name = file.rsplit('/').next().unwrap_or(file);
        [
            "training_args.bin",
            "optimizer.pt",
            "optimizer.bin",
            "preview_decoder.safetensors",
            "scheduler.pt",
        ]
        .contains(&name)
    };
    files.retain(|file| is_weights(file) && !is_kept(file));
    if files.iter().any(|file| file.ends_with(".safetensors")) {
        files.retain(|file| file.ends_with(".safetensors"));
    }
    match files.len() {
        1 => Ok(files.remove(0)),
        _ => Err(files),
    }
}

/// Only plain parts joined by `/`: nothing absolute, nothing upward, nothing of another system.
pub(crate) fn check_relative(relative: &str) -> Result<()> {
    if relative.split('/').all(is_bare_file_name) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "{relative:?} is not a relative file name inside the model's folder"
    )))
}

fn list_into(folder: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let relative = format!("{prefix}{name}");
        if kind.is_dir() {
            if depth < MAX_LIST_DEPTH {
                list_into(&entry.path(), &format!("{relative}/"), depth + 1, names);
            }
        } else if entry.path().is_file() {
            // Hub caches link files, so links to files count.
            names.push(relative);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, OutTensor, safetensors_bytes, write_atomic};
    use std::collections::BTreeMap;

    fn weights(value: u8) -> Vec<u8> {
        let tensor = OutTensor {
            name: "w".into(),
            dtype: Dtype::U8,
            shape: vec![1],
            data: Cow::Owned(vec![value]),
        };
        safetensors_bytes(&[tensor], &BTreeMap::new()).unwrap()
    }

    fn value(source: &dyn TensorSource) -> u8 {
        source.view("w").unwrap().unwrap().data[0]
    }

    fn embedded(files: &[(&'static str, Vec<u8>)]) -> ModelFolder {
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, bytes)| (*name, &*bytes.clone().leak()))
            .collect();
        ModelFolder::Embedded {
            label: "box",
            files: files.leak(),
        }
    }

    fn disk(files: &[(&'static str, Vec<u8>)]) -> (tempfile::TempDir, ModelFolder) {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_atomic(&path, bytes).unwrap();
        }
        let model = ModelFolder::Disk(folder.path().to_owned());
        (folder, model)
    }

    fn index(shard: &str) -> Vec<u8> {
        format!(r#"{{"metadata":{{}},"weight_map":{{"w":"{shard}"}}}}"#).into_bytes()
    }

    #[test]
    fn disk_and_embedded_behave_alike() {
        let files = [
            ("model_index.json", b"{\"a\": 1}".to_vec()),
            ("vae/diffusion_pytorch_model.safetensors", weights(1)),
            (
                "transformer/diffusion_pytorch_model.fp16.safetensors",
                weights(2),
            ),
            (
                "transformer/diffusion_pytorch_model.safetensors",
                weights(3),
            ),
            (
                "text/model.safetensors.index.json",
                index("model-1.safetensors"),
            ),
            ("text/model-1.safetensors", weights(4)),
            (
                "big/diffusion_pytorch_model.safetensors.index.fp16.json",
                index("b.safetensors"),
            ),
            ("big/b.safetensors", weights(5)),
            ("lora/pytorch_lora_weights.safetensors", weights(6)),
            ("averaged/model.safetensors", weights(7)),
            ("averaged/ema_model.bin", weights(8)),
            ("only/ema_model.bin", weights(9)),
        ];
        let (_keep, on_disk) = disk(&files);
        for folder in [on_disk, embedded(&files)] {
            assert_eq!(folder.list().len(), files.len());
            assert!(folder.list().is_sorted());
            assert!(folder.exists("model_index.json"));
            assert!(!folder.exists("../model_index.json"));
            assert_eq!(folder.read_json("model_index.json").unwrap()["a"], 1);
            let open = |sub, variant| value(&*folder.open_component(sub, variant).unwrap());
            assert_eq!(open("vae", None), 1);
            assert_eq!(open("vae", Some("fp16")), 1, "falls back to the plain file");
            assert_eq!(open("transformer", Some("fp16")), 2);
            assert_eq!(open("transformer", None), 3);
            assert_eq!(open("text", None), 4);
            assert_eq!(open("big", Some("fp16")), 5);
            assert_eq!(open("big", None), 5, "the only variant");
            assert_eq!(open("lora", None), 6);
            assert_eq!(open("averaged", None), 8);
            let trained = folder.open_trained("averaged", None).unwrap();
            assert_eq!(value(&*trained), 7);
            let error = folder.open_trained("only", None).err().unwrap().to_string();
            assert!(error.contains("no weights"), "{error}");
            let error = folder
                .open_component("absent", None)
                .err()
                .unwrap()
                .to_string();
            assert!(
                error.contains("absent") && error.contains("diffusion_pytorch_model"),
                "{error}"
            );
            assert!(folder.open_component("vae", Some("../x")).is_err());
            let error = folder.read("absent.json").unwrap_err().to_string();
            assert!(
                error.contains("absent.json") && error.contains(&folder.label()),
                "{error}"
            );
        }
    }

    #[test]
    fn an_authors_file_is_found_by_being_the_only_one() {
        let files = [
            ("vae/config.json", b"{}".to_vec()),
            ("vae/autoencoder.safetensors", weights(1)),
            ("vae/training_args.bin", weights(2)),
            ("vae/preview_decoder.safetensors", weights(6)),
            ("vae/old/model.safetensors", weights(3)),
            ("two/a.safetensors", weights(4)),
            ("two/b.safetensors", weights(5)),
        ];
        let (_keep, on_disk) = disk(&files);
        for folder in [on_disk, embedded(&files)] {
            assert_eq!(value(&*folder.open_component("vae", None).unwrap()), 1);
            assert_eq!(
                value(&*folder.open_component("vae", Some("fp16")).unwrap()),
                1
            );
            let error = folder
                .open_component("two", None)
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains("2 weights files of other names"), "{error}");
            assert!(error.contains("two/b.safetensors"), "{error}");
        }
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let (_keep, folder) = disk(&[("a", vec![])]);
        for name in [
            "../a",
            "/etc/passwd",
            "b/../../a",
            "",
            "b//a",
            "c:\\a",
            "a\0",
        ] {
            assert!(folder.read(name).is_err(), "{name:?}");
            assert!(folder.open(name).is_err(), "{name:?}");
        }
        assert!(folder.read("a").is_ok());
    }

    #[test]
    fn bad_json_names_the_file() {
        let folder = embedded(&[("config.json", b"{".to_vec())]);
        let error = folder.read_json("config.json").unwrap_err().to_string();
        assert!(error.contains("box/config.json"), "{error}");
    }
}
