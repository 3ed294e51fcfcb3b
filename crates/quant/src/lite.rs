//! The part of a diffusers configuration that says what is quantized.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::file::{LayerKind, NunchakuFile};
use crate::integer::{GROUP, MICRO_GROUP};

/// The `quantization_config` of diffusers' `nunchaku_lite` quantizer: which modules are replaced.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LiteConfig {
    /// Modules in W4A4.
    pub w4a4: Vec<String>,
    /// Rank of their branches.
    pub rank: usize,
    /// `int4` or `nvfp4`.
    pub precision: String,
    /// Modules in W4A16.
    pub w4a16: Vec<String>,
}

impl LiteConfig {
    /// The `quantization_config` that [`LiteConfig::from_config`] reads.
    pub fn to_json(&self) -> Value {
        let mut found = json!({"quant_method": "nunchaku_lite", "compute_dtype": "bfloat16"});
        if !self.w4a4.is_empty() {
            let group = match self.precision.as_str() {
                "nvfp4" => MICRO_GROUP,
                _ => GROUP,
            };
            found["svdq_w4a4"] = json!({
                "precision": self.precision, "group_size": group, "rank": self.rank,
                "targets": self.w4a4,
            });
        }
        if !self.w4a16.is_empty() {
            found["awq_w4a16"] = json!({
                "precision": "int4", "group_size": GROUP, "targets": self.w4a16,
            });
        }
        found
    }

    /// From a model's configuration; `None` where it is not quantized by `nunchaku_lite`.
    ///
    /// # Errors
    /// A key that is missing or of another kind, a precision or group size that does not exist.
    pub fn from_config(config: &Value, label: &str) -> Result<Option<Self>> {
        let quantization = &config["quantization_config"];
        if quantization["quant_method"] != "nunchaku_lite" {
            return Ok(None);
        }
        let wrong = |key: &str, found: &Value, expected: &str| Error::File {
            file: label.to_owned(),
            problem: format!("quantization_config.{key} is {found}, expected {expected}"),
        };
        let targets = |key: &str| -> Result<Vec<String>> {
            let found = &quantization[key]["targets"];
            let list = found
                .as_array()
                .ok_or_else(|| wrong(&format!("{key}.targets"), found, "a list of module names"))?;
            let name = |name: &Value| {
                let name = name.as_str().map(str::to_owned);
                name.ok_or_else(|| {
                    wrong(&format!("{key}.targets"), found, "a list of module names")
                })
            };
            list.iter().map(name).collect()
        };
        let size = |key: &str, part: &str| -> Result<u64> {
            let found = &quantization[key][part];
            let expected = "a whole number";
            found
                .as_u64()
                .ok_or_else(|| wrong(&format!("{key}.{part}"), found, expected))
        };
        let mut lite = Self::default();
        if !quantization["svdq_w4a4"].is_null() {
            let found = &quantization["svdq_w4a4"]["precision"];
            let group = match found.as_str() {
                Some("int4") => GROUP,
                Some("nvfp4") => MICRO_GROUP,
                _ => return Err(wrong("svdq_w4a4.precision", found, "\"int4\" or \"nvfp4\"")),
            };
            lite.precision = found.as_str().unwrap_or_default().to_owned();
            if size("svdq_w4a4", "group_size")? != group as u64 {
                let found = &quantization["svdq_w4a4"]["group_size"];
                return Err(wrong("svdq_w4a4.group_size", found, &group.to_string()));
            }
            lite.rank = size("svdq_w4a4", "rank")? as usize;
            lite.w4a4 = targets("svdq_w4a4")?;
        }
        if !quantization["awq_w4a16"].is_null() {
            if size("awq_w4a16", "group_size")? != GROUP as u64 {
                let found = &quantization["awq_w4a16"]["group_size"];
                return Err(wrong("awq_w4a16.group_size", found, "64"));
            }
            lite.w4a16 = targets("awq_w4a16")?;
        }
        Ok(Some(lite))
    }

    /// Checks that exactly these modules are quantized in a file.
    ///
    /// # Errors
    /// The first module that the file and the configuration disagree about.
    pub fn check(&self, file: &NunchakuFile) -> Result<()> {
        let found: BTreeMap<String, LayerKind> = file.layers().into_iter().collect();
        let listed = [
            (&self.w4a4, LayerKind::W4A4),
            (&self.w4a16, LayerKind::W4A16),
        ];
        for (names, kind) in listed {
            for name in names {
                if found.get(name) != Some(&kind) {
                    return Err(file.error(format!(
                        "quantization_config lists {name:?} as {kind:?}, but the file has no such layer \
                         (tensor {:?})",
                        format!("{name}.qweight")
                    )));
                }
            }
        }
        match found
            .keys()
            .find(|name| !listed.iter().any(|(names, _)| names.contains(name)))
        {
            Some(name) => Err(file.error(format!(
                "tensor {:?} belongs to a layer that quantization_config does not list",
                format!("{name}.qweight")
            ))),
            None => Ok(()),
        }
    }
}
