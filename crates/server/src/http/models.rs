//! `/v1/models`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::served::{Residence, Served};

/// `GET /v1/models`.
pub async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    let models = app.models.all().iter();
    let models: Vec<Value> = models.map(|model| describe(model, &model.id)).collect();
    Json(json!({"object": "list", "data": models}))
}

/// `GET /v1/models/{id}`.
pub async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>> {
    match app.models.named(&id) {
        Some(model) => Ok(Json(describe(model, &id))),
        None => {
            let shown = brisk_store::shown_within(&id, 64);
            Err(ApiError {
                code: "model_not_found",
                ..ApiError::not_found(format!("there is no model {shown}"))
            })
        }
    }
}

fn describe(model: &Served, id: &str) -> Value {
    let residence = model.residence();
    let kinds: Vec<&str> = model
        .results()
        .into_iter()
        .map(|kind| kind.name())
        .collect();
    let mut told = json!({
        "id": id, "object": "model", "created": model.created, "owned_by": "brisk",
        "brisk": {
            "kind": kinds, "status": residence.name(), "bytes": model.bytes, "aliases": model.aliases,
        },
    });
    if let Residence::Failed { error, .. } = residence {
        told["brisk"]["error"] = error.message.into();
    }
    told
}
