//! Pictures: previews as they come, then each picture.

use std::sync::Arc;

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Source, event};
use crate::app::App;
use crate::ask::{Ask, ImageAsk};
use crate::error::ApiError;
use crate::fields::Endpoint;
use crate::job::{Job, Preview};
use crate::outcome::Outcome;
use crate::reply;

pub(super) struct Images {
    app: Arc<App>,
    job: Arc<Job>,
    base: String,
    sent: usize,
}

impl Images {
    pub(super) fn new(app: Arc<App>, job: Arc<Job>, base: String) -> Self {
        Self {
            app,
            job,
            base,
            sent: 0,
        }
    }

    fn preview(&self, ask: &ImageAsk, preview: &Preview) -> Option<Bytes> {
        if preview.index >= ask.partial_images {
            return None;
        }
        let bytes = brisk_media::encode_png(&preview.picture, &[]).ok()?;
        let (width, height) = (preview.picture.width, preview.picture.height);
        let kind = name(ask.endpoint, "partial_image");
        Some(event(
            Some(&kind),
            &json!({
                "type": kind, "b64_json": STANDARD.encode(bytes),
                "partial_image_index": preview.index, "image_index": preview.image,
                "created_at": self.job.created_at, "size": format!("{width}x{height}"),
                "quality": "auto", "background": "opaque", "output_format": "png",
            }),
        ))
    }
}

/// `image_generation.…` or `image_edit.…`.
fn name(endpoint: Endpoint, what: &str) -> String {
    match endpoint {
        Endpoint::Edits => format!("image_edit.{what}"),
        _ => format!("image_generation.{what}"),
    }
}

impl Source for Images {
    fn next(&mut self, ready: &mut Vec<Bytes>) -> bool {
        let Ask::Images(ask) = &self.job.ask else {
            return true;
        };
        let (previews, status) = {
            let state = self.job.state();
            (state.previews[self.sent..].to_vec(), state.status())
        };
        self.sent += previews.len();
        ready.extend(
            previews
                .iter()
                .filter_map(|preview| self.preview(ask, preview)),
        );
        if !status.is_final() {
            return false;
        }
        let outcome = reply::outcome(&self.job);
        let images = match outcome.as_deref() {
            Ok(Outcome::Images(images)) => images,
            Ok(_) => return true,
            Err(error) => {
                ready.push(event(Some("error"), &ApiError::body(error)));
                return true;
            }
        };
        let kind = name(ask.endpoint, "completed");
        for (index, file) in images.files.iter().enumerate() {
            let mut data = reply::of_pictures(ask, images);
            let picture = reply::picture(&self.app, &self.job, ask, file, index, &self.base);
            if let (Some(data), Some(picture)) = (data.as_object_mut(), picture.as_object()) {
                data.extend(picture.clone());
            }
            data["type"] = kind.clone().into();
            data["image_index"] = index.into();
            data["created_at"] = self.job.created_at.into();
            ready.push(event(Some(&kind), &data));
        }
        true
    }
}
