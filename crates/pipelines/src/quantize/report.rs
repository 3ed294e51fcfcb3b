//! How a model came out.

use std::collections::BTreeMap;

use brisk_quant::LayerError;
use serde_json::{Value, json};

use super::QuantizeRequest;

/// How layers that share an input came out.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerReport {
    /// The first of them.
    pub name: String,
    /// Relative error of all their outputs on the calibration rows.
    pub error: f64,
    /// Exponent of the activations in the smoothing factors.
    pub alpha: f32,
    /// Exponent of the weights in them, and iterations of the branch; SVDQuant has these.
    pub branch: Option<(f32, usize)>,
}

/// How one part came out.
#[derive(Debug, Clone, PartialEq)]
pub struct PartReport {
    /// Its name in the model.
    pub name: String,
    /// Its layers, by their inputs.
    pub layers: Vec<LayerReport>,
    /// Whether an earlier run had done it.
    pub resumed: bool,
}

/// How a component came out.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentReport {
    /// Its folder.
    pub name: &'static str,
    /// Whether it was quantized by AWQ.
    pub is_awq: bool,
    /// Its parts.
    pub parts: Vec<PartReport>,
    /// Bytes of its weights before and after.
    pub bytes: [u64; 2],
}

/// How a model came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// Its components.
    pub components: Vec<ComponentReport>,
    /// Seconds that this run took.
    pub seconds: f64,
}

impl LayerReport {
    /// Of a layer with this error.
    pub(super) fn new(name: &str, error: LayerError, alpha: f32) -> Self {
        Self {
            name: name.to_owned(),
            error: error.relative(),
            alpha,
            branch: None,
        }
    }

    fn value(&self) -> Value {
        let mut value = json!({"relative_error": self.error, "alpha": self.alpha});
        if let Some((beta, iterations)) = self.branch {
            value["beta"] = json!(beta);
            value["iterations"] = json!(iterations);
        }
        value
    }
}

impl PartReport {
    /// One line for people.
    pub(super) fn line(&self) -> String {
        let worst = self.layers.iter().map(|layer| layer.error);
        let worst = 100.0 * worst.fold(0.0, f64::max);
        let up_to = if self.layers.len() > 1 { "up to " } else { "" };
        let before = if self.resumed { " (done before)" } else { "" };
        let name = &self.name;
        format!("{name}: output error {up_to}{worst:.2} %{before}")
    }

    /// What is kept with a finished part.
    pub(super) fn stored(&self) -> Value {
        let layer = |layer: &LayerReport| {
            let mut value = layer.value();
            value["name"] = json!(layer.name);
            value
        };
        json!({"layers": self.layers.iter().map(layer).collect::<Vec<_>>()})
    }

    /// Of what was kept; none where it is something else.
    pub(super) fn read(name: &str, stored: &Value) -> Option<Self> {
        let layer = |value: &Value| {
            let branch = match (value["beta"].as_f64(), value["iterations"].as_u64()) {
                (Some(beta), Some(iterations)) => Some((beta as f32, iterations as usize)),
                _ => None,
            };
            Some(LayerReport {
                name: value["name"].as_str()?.to_owned(),
                error: value["relative_error"].as_f64()?,
                alpha: value["alpha"].as_f64()? as f32,
                branch,
            })
        };
        let layers = stored["layers"].as_array()?.iter().map(layer);
        Some(Self {
            name: name.to_owned(),
            layers: layers.collect::<Option<_>>()?,
            resumed: true,
        })
    }
}

impl ComponentReport {
    /// All its layers.
    pub fn layers(&self) -> impl Iterator<Item = &LayerReport> {
        self.parts.iter().flat_map(|part| &part.layers)
    }
}

impl Quantized {
    /// One JSON document.
    pub fn document(&self, request: &QuantizeRequest) -> Value {
        let mut document = json!({
            "model": request.model, "output": request.output.display().to_string(),
            "method": request.settings.method.name(), "rank": request.settings.rank,
            "seconds": self.seconds,
        });
        for component in &self.components {
            let layers = component.layers();
            let layers = layers.map(|layer| (layer.name.as_str(), layer.value()));
            let layers: BTreeMap<&str, Value> = layers.collect();
            let [before, after] = component.bytes;
            if component.is_awq {
                document[component.name] = json!({
                    "method": "awq", "bytes_before": before, "bytes_after": after,
                    "inputs": layers,
                });
            } else {
                document["bytes_before"] = json!(before);
                document["bytes_after"] = json!(after);
                document["layers"] = json!(layers);
            }
        }
        document
    }
}
