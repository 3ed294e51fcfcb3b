//! What a model makes of a picture before it knows a prompt, kept in a file for later requests.

use std::collections::BTreeMap;
use std::path::Path;

use brisk_media::Picture;
use brisk_store::{Dtype, Fingerprint, OutTensor, open_weights_with_metadata};

use crate::error::{Error, Result};

/// The tensor `[1, channels, rows, columns]` of a file.
const TENSOR: &str = "image_embeddings";
/// Texts of the file that say what it was made of.
const PICTURE: &str = "picture";
const MODEL: &str = "model";

/// A picture's embedding.
#[derive(Debug, Clone)]
pub struct PictureEmbedding {
    /// `[channels, rows, columns]`.
    pub shape: [usize; 3],
    /// Row-major values.
    pub values: Vec<f32>,
    /// What it was made of and with.
    pub origin: EmbeddingOrigin,
}

/// What an embedding was made of: another one does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingOrigin {
    /// A number of the picture's size and pixels.
    pub picture: String,
    /// A number of the model's weights.
    pub model: String,
}

impl EmbeddingOrigin {
    /// Of a picture, with the model of this number.
    pub fn new(picture: &Picture, model: String) -> Self {
        let mut number = Fingerprint::default();
        number.add(&(picture.width as u64).to_le_bytes());
        number.add(&picture.pixels);
        Self {
            picture: number.text(),
            model,
        }
    }
}

impl PictureEmbedding {
    /// Reads the embedding `[channels, rows, columns]` of a file.
    ///
    /// # Errors
    /// No such file or tensor, another shape, values that are not finite, or one that was made of another picture or
    /// with another model.
    pub fn read(file: &Path, shape: [usize; 3], origin: &EmbeddingOrigin) -> Result<Self> {
        let wrong = |message: String| Error::config(file.display().to_string(), message);
        let (source, texts) = open_weights_with_metadata(file)?;
        let [channels, rows, columns] = shape;
        let expected = [1, channels, rows, columns];
        match source.info(TENSOR) {
            Some((_, found)) if found == expected => {}
            Some((_, found)) => {
                let message =
                    format!("{TENSOR} has shape {found:?}; this model makes {expected:?}");
                return Err(wrong(message));
            }
            None => {
                let message = format!(
                    "there is no tensor {TENSOR:?}; it is no file of a picture's embedding"
                );
                return Err(wrong(message));
            }
        }
        for (key, own, what) in [
            (PICTURE, &origin.picture, "of another picture"),
            (MODEL, &origin.model, "with another model"),
        ] {
            match texts.get(key) {
                Some(found) if found == own => {}
                Some(_) => return Err(wrong(format!("it was made {what}; make it anew"))),
                None => {
                    let message =
                        format!("it does not say what it was made of (no `{key}`); make it anew");
                    return Err(wrong(message));
                }
            }
        }
        let values = match source.view(TENSOR)? {
            Some(view) => view.to_f32()?,
            None => Vec::new(),
        };
        if values.iter().any(|value| !value.is_finite()) {
            return Err(wrong(format!("{TENSOR} holds values that are not finite")));
        }
        Ok(Self {
            shape,
            values,
            origin: origin.clone(),
        })
    }

    /// The tensor and the texts of a file, as [`read`](Self::read) takes them.
    pub fn to_file(&self) -> (OutTensor<'static>, BTreeMap<String, String>) {
        let [channels, rows, columns] = self.shape;
        let bytes: Vec<u8> = self
            .values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let tensor = OutTensor {
            name: TENSOR.to_owned(),
            dtype: Dtype::F32,
            shape: vec![1, channels, rows, columns],
            data: bytes.into(),
        };
        let texts = [(PICTURE, &self.origin.picture), (MODEL, &self.origin.model)];
        let texts = texts.map(|(key, text)| (key.to_owned(), text.clone()));
        (tensor, texts.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use brisk_store::write_safetensors;

    use super::*;

    #[test]
    fn what_is_kept_is_read_for_its_own_picture_and_model_only() {
        let picture = Picture::filled(4, 2, [1, 2, 3]);
        let origin = EmbeddingOrigin::new(&picture, "0a".to_owned());
        let mut kept = PictureEmbedding {
            shape: [2, 1, 2],
            values: vec![1.0, -2.0, 3.0, 0.5],
            origin: origin.clone(),
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seen.safetensors");
        let write = |kept: &PictureEmbedding| {
            let (tensor, texts) = kept.to_file();
            write_safetensors(&file, &[tensor], &texts).unwrap();
        };
        write(&kept);
        let read = |shape, origin: &EmbeddingOrigin| PictureEmbedding::read(&file, shape, origin);
        assert_eq!(read([2, 1, 2], &origin).unwrap().values, kept.values);
        let other = EmbeddingOrigin::new(&Picture::filled(2, 4, [1, 2, 3]), "0a".to_owned());
        let refused =
            |shape, origin: &EmbeddingOrigin| read(shape, origin).unwrap_err().to_string();
        assert!(refused([2, 1, 2], &other).contains("another picture"));
        let model = EmbeddingOrigin::new(&picture, "0b".to_owned());
        assert!(refused([2, 1, 2], &model).contains("another model"));
        assert!(refused([2, 2, 1], &origin).contains("[1, 2, 2, 1]"));
        kept.values[2] = f32::NAN;
        write(&kept);
        assert!(refused([2, 1, 2], &origin).contains("not finite"));
    }
}
