//! HunyuanVideo's networks against the goldens of their references, and against themselves.

#[path = "common/components.rs"]
mod components;

use std::sync::Arc;

use brisk_models::component::{
    Component, ComponentWeights, LoadSettings, NamedTensors, PrepareError, Sizes, read_inputs,
};
use brisk_models::hunyuan_video::{autoencoder, transformer};
use brisk_nn::{Quantization, Tensor, Trace};
use brisk_store::{MappedSource, ModelFolder, Slice, TensorSource};
use brisk_testkit::{Golden, assert_close, fixtures_dir, relative_l2, values};

const TOLERANCE: f64 = 1e-4;

fn folder(case: &str) -> ModelFolder {
    ModelFolder::Disk(fixtures_dir().join("hunyuan_video").join(case))
}

/// Runs an entry of a fixture's network on given inputs.
fn run(
    component: &Component,
    case: &str,
    entry: &str,
    inputs: &dyn TensorSource,
    settings: &LoadSettings,
    see: &mut dyn FnMut(&str, &Tensor),
) -> Result<NamedTensors, String> {
    let folder = folder(case);
    let config = (component.open)(&folder.read("config.json").unwrap(), case).unwrap();
    let entry = component.entry(entry).unwrap();
    let dimension = |word: &str| config.dimension(word);
    let message = |error: brisk_models::Error| error.to_string();
    let inputs =
        read_inputs(&config.inputs(entry), &dimension, inputs, "inputs").map_err(message)?;
    let weights = ComponentWeights::Stored(folder.open_component("", None).unwrap());
    let model = config.load(entry, &weights, settings).map_err(message)?;
    let mut ready = model
        .prepare(&inputs, &Sizes::default())
        .map_err(|error| match error {
            PrepareError::Failed(error) => error.to_string(),
            PrepareError::Size(error) => error.to_string(),
        })?;
    ready.run(&mut Trace::details(see)).map_err(message)?;
    ready.outputs().map_err(message)
}

const TRANSFORMERS: [(&str, &str); 7] = [
    ("text", "text"),
    ("concat", "concat"),
    ("replace", "replace"),
    ("text_original", "text"),
    ("concat_student", "concat"),
    ("concat_lightning", "concat"),
    ("concat_distilling", "concat"),
];

#[test]
fn transformers_agree_block_by_block_in_every_layout() {
    for (case, golden_of) in TRANSFORMERS {
        let path = format!("hunyuan_video/{golden_of}/golden_transformer.safetensors");
        let mut golden = Golden::open(&path);
        let mut seen = std::collections::BTreeMap::<String, usize>::new();
        let mut compared = std::collections::BTreeSet::new();
        let mut compare = |golden: &mut Golden, name: String, x: &Tensor| {
            assert!(golden.compare(&name, x, TOLERANCE), "{case}: {name}");
            compared.insert(name);
        };
        let mut see = |name: &str, x: &Tensor| {
            // Clips run one after the other: the second time is the second clip.
            let clip = seen.entry(name.to_owned()).or_default();
            let at = |name: &str| format!("blocks.{clip}.{name}");
            if let Some(block) = name.strip_suffix(".image") {
                compare(&mut golden, at(&format!("{block}.0")), x);
            } else if let Some(block) = name.strip_suffix(".text") {
                compare(&mut golden, at(&format!("{block}.1")), x);
            } else if name.starts_with("single_transformer_blocks") {
                if name.ends_with(".attn") {
                    return;
                }
                let text = golden.get(&at(&format!("{name}.1"))).dim(1).unwrap();
                let picture = x.dim(1).unwrap() - text;
                let part = |start, count| x.narrow(1, start, count).unwrap();
                compare(&mut golden, at(&format!("{name}.0")), &part(0, picture));
                compare(&mut golden, at(&format!("{name}.1")), &part(picture, text));
            } else {
                compare(&mut golden, at(name), x);
            }
            *clip += 1;
        };
        let inputs = components::inputs(&path, "inputs.");
        let settings = LoadSettings::default();
        let component = &transformer::COMPONENT;
        let outputs = run(
            component,
            case,
            "transformer",
            &*inputs,
            &settings,
            &mut see,
        );
        let outputs = outputs.unwrap_or_else(|error| panic!("{case}: {error}"));
        let sample = outputs.required("sample").unwrap();
        assert!(
            golden.compare("outputs.sample", sample, TOLERANCE),
            "{case}"
        );
        assert_eq!(golden.names("blocks.").len(), compared.len(), "{case}");
        golden.report();
    }
}

/// The inputs of a golden with some of them replaced.
fn changed(path: &str, name: &str, by: Tensor) -> Arc<dyn TensorSource> {
    let source = components::inputs(path, "inputs.");
    let shape = by.dims().to_vec();
    let bytes = values(&by).iter().flat_map(|x| x.to_le_bytes()).collect();
    let other = brisk_store::MemorySource::new(vec![(
        name.to_owned(),
        brisk_store::Dtype::F32,
        shape,
        bytes,
    )])
    .unwrap();
    Arc::new(Both {
        first: Arc::new(other),
        rest: source,
    })
}

/// Tensors of one source, and of another where the first has none of the name.
struct Both {
    first: Arc<dyn TensorSource>,
    rest: Arc<dyn TensorSource>,
}

impl TensorSource for Both {
    fn names(&self) -> Vec<String> {
        let mut names = self.rest.names();
        names.extend(self.first.names());
        names.sort();
        names.dedup();
        names
    }

    fn info(&self, name: &str) -> Option<(brisk_store::Dtype, Vec<usize>)> {
        self.first.info(name).or_else(|| self.rest.info(name))
    }

    fn view(&self, name: &str) -> brisk_store::Result<Option<brisk_store::TensorView<'_>>> {
        match self.first.view(name)? {
            Some(view) => Ok(Some(view)),
            None => self.rest.view(name),
        }
    }

    fn origin(&self, name: &str) -> String {
        self.rest.origin(name)
    }
}

fn sample(
    case: &str,
    inputs: &dyn TensorSource,
    settings: &LoadSettings,
) -> Result<Vec<f32>, String> {
    let component = &transformer::COMPONENT;
    let outputs = run(
        component,
        case,
        "transformer",
        inputs,
        settings,
        &mut |_, _| {},
    )?;
    Ok(values(outputs.required("sample").unwrap()))
}

#[test]
fn padding_says_nothing_and_masks_with_holes_are_refused() {
    let path = "hunyuan_video/concat/golden_transformer.safetensors";
    let settings = LoadSettings::default();
    let wanted = sample("concat", &*components::inputs(path, "inputs."), &settings).unwrap();
    let golden = Golden::open(path);
    let text = golden.get("inputs.encoder_hidden_states");
    let padding = text.narrow(1, 6, 3).unwrap().narrow(0, 1, 1).unwrap();
    let other = (padding * 1000.0).unwrap();
    let second = text.narrow(0, 1, 1).unwrap().narrow(1, 0, 6).unwrap();
    let second = Tensor::cat(&[second, other], 1).unwrap();
    let text = Tensor::cat(&[text.narrow(0, 0, 1).unwrap(), second], 0).unwrap();
    let inputs = changed(path, "encoder_hidden_states", text);
    assert_eq!(sample("concat", &*inputs, &settings).unwrap(), wanted);

    let mask = |second: [f32; 9]| {
        let mask = [[1.0; 9], second].concat();
        let mask = Tensor::from_vec(mask, (2, 9)).unwrap();
        sample(
            "concat",
            &*changed(path, "encoder_attention_mask", mask),
            &settings,
        )
    };
    let one = mask([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    assert!(one.iter().all(|value| value.is_finite()) && one != wanted);
    for wrong in [
        [0.0; 9],
        [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ] {
        let message = mask(wrong).unwrap_err();
        assert!(
            message.contains("row 1") && message.contains("encoder_attention_mask"),
            "{message}"
        );
    }
}

#[test]
fn few_bits_stay_close() {
    let path = "hunyuan_video/concat/golden_transformer.safetensors";
    let inputs = components::inputs(path, "inputs.");
    let wanted = sample("concat", &*inputs, &LoadSettings::default()).unwrap();
    let mut before = 0.0;
    for (quantization, most) in [(Quantization::EightBit, 0.03), (Quantization::FourBit, 0.4)] {
        let settings = LoadSettings {
            quantization,
            ..LoadSettings::default()
        };
        let off = relative_l2(&sample("concat", &*inputs, &settings).unwrap(), &wanted);
        assert!(off > before && off < most, "{quantization:?}: {off}");
        before = off;
    }
}

/// A tensor that is in the wrong place of a trainer's checkpoint is named, not left out.
#[test]
fn what_does_not_belong_to_the_authors_layout_is_reported() {
    let folder = folder("concat_lightning");
    let source = folder.open_component("", None).unwrap();
    let bytes = folder.read("config.json").unwrap();
    let config = (transformer::COMPONENT.open)(&bytes, "config.json").unwrap();
    config.check(source.clone()).unwrap();
    for (from, to) in [
        ("model.img_in.proj.bias", "model.img_in.extra.bias"),
        (
            "model.single_blocks.1.q_norm.weight",
            "model.single_blocks.7.q_norm.weight",
        ),
        (
            "model.double_blocks.1.img_mod.linear.bias",
            "double_blocks.1.img_mod.linear.bias",
        ),
    ] {
        let names = source.names().into_iter();
        let map = names
            .map(|name| match name == from {
                true => (to.to_owned(), Slice::whole(name)),
                false => (name.clone(), Slice::whole(name)),
            })
            .collect();
        let moved = Arc::new(MappedSource::new(source.clone(), map).unwrap());
        let message = config.check(moved).unwrap_err().to_string();
        assert!(message.contains(to), "{message}");
    }
}

/// What a run of a golden gives, through the autoencoder.
fn autoencoder_run(
    case: &str,
    entry: &str,
    inputs: &dyn TensorSource,
    settings: &LoadSettings,
    see: &mut dyn FnMut(&str, &Tensor),
) -> Tensor {
    let entry_of = autoencoder::COMPONENT.entry(entry).unwrap();
    let names = inputs.names().into_iter();
    let taken = names.filter(|name| entry_of.inputs.iter().any(|port| port.name == name));
    let tensors: Vec<_> = taken
        .map(|name| {
            let view = inputs.view(&name).unwrap().unwrap();
            let (dtype, shape) = (view.dtype, view.shape.clone());
            (name.clone(), dtype, shape, view.data.to_vec())
        })
        .collect();
    let own = brisk_store::MemorySource::new(tensors).unwrap();
    let outputs = run(&autoencoder::COMPONENT, case, entry, &own, settings, see);
    let outputs = outputs.unwrap_or_else(|error| panic!("{case} {entry}: {error}"));
    outputs.required(entry_of.outputs[0].name).unwrap().clone()
}

const AUTOENCODERS: [(&str, &str); 3] = [
    ("autoencoder", "autoencoder"),
    ("autoencoder_plain", "autoencoder_plain"),
    ("autoencoder_original", "autoencoder"),
];
const HALVES: [(&str, &str); 2] = [
    ("vae.encode", "outputs.latent"),
    ("vae.decode", "outputs.sample"),
];

#[test]
fn autoencoders_agree_block_by_block() {
    for (case, golden_of) in AUTOENCODERS {
        for file in ["golden", "golden_frame"] {
            let path = format!("hunyuan_video/{golden_of}/{file}.safetensors");
            let mut golden = Golden::open(&path);
            let inputs = components::inputs(&path, "inputs.");
            let blocks = golden.names("blocks.").len();
            let mut compared = 0;
            for (entry, output) in HALVES {
                let mut see = |name: &str, x: &Tensor| {
                    let name = format!("blocks.{name}");
                    if blocks == 0 || name == "blocks.quant_conv" {
                        return;
                    }
                    let x = match name.ends_with("attentions.0") {
                        true => x.reshape((2, (), x.dim(4).unwrap())).unwrap(),
                        false => x.clone(),
                    };
                    assert!(golden.compare(&name, &x, TOLERANCE), "{case}: {name}");
                    compared += 1;
                };
                let settings = LoadSettings::default();
                let found = autoencoder_run(case, entry, &*inputs, &settings, &mut see);
                assert!(
                    golden.compare(output, &found, TOLERANCE),
                    "{case} {file}: {output}"
                );
            }
            assert_eq!(compared, blocks, "{case}");
            golden.report();
        }
    }
}

#[test]
fn tiles_of_clips_agree_with_those_of_diffusers() {
    for case in ["autoencoder", "autoencoder_plain"] {
        for file in ["golden_tiled", "golden_tiled_wide"] {
            let path = format!("hunyuan_video/{case}/{file}.safetensors");
            let mut golden = Golden::open(&path);
            let inputs = components::inputs(&path, "inputs.");
            let halves = match file {
                "golden_tiled" => &HALVES[1..],
                _ => &HALVES[..],
            };
            for (entry, output) in halves {
                let settings = LoadSettings::default();
                let found = autoencoder_run(case, entry, &*inputs, &settings, &mut |_, _| {});
                assert!(
                    golden.compare(output, &found, TOLERANCE),
                    "{case} {file}: {output}"
                );
            }
            golden.report();
        }
    }
}

/// Strips of any height, over one frame and several, give what the whole gives.
#[test]
fn pieces_are_the_whole() {
    for case in ["autoencoder", "autoencoder_plain"] {
        for file in ["golden", "golden_frame"] {
            let path = format!("hunyuan_video/{case}/{file}.safetensors");
            let inputs = components::inputs(&path, "inputs.");
            let decode = |strip_rows| {
                let settings = LoadSettings {
                    strip_rows,
                    ..LoadSettings::default()
                };
                autoencoder_run(case, "vae.decode", &*inputs, &settings, &mut |_, _| {})
            };
            let whole = decode(None);
            for rows in [1, 3, 8, 1000] {
                let name = format!("{case} {file} in strips of {rows}");
                assert_close(&name, &decode(Some(rows)), &whole, 2e-6);
            }
        }
    }
}

#[test]
fn the_loop_agrees_step_by_step() {
    for case in ["text", "concat", "replace", "concat_student"] {
        let golden_of = case.split('_').next().unwrap();
        let path = format!("hunyuan_video/{golden_of}/golden_sampler.safetensors");
        let mut golden = Golden::open(&path);
        let inputs = components::inputs(&path, "inputs.");
        let settings = LoadSettings::default();
        let component = &transformer::COMPONENT;
        let outputs = run(
            component,
            case,
            "sampler",
            &*inputs,
            &settings,
            &mut |_, _| {},
        );
        let outputs = outputs.unwrap_or_else(|error| panic!("{case}: {error}"));
        for name in ["latents.0", "latents.1", "latents.2", "latents.3", "sample"] {
            let found = outputs.required(name).unwrap();
            let name = format!("outputs.{name}");
            assert!(golden.compare(&name, found, TOLERANCE), "{case}: {name}");
        }
        golden.report();
    }
}

/// Tensors of the loop that do not go together, each named.
#[test]
fn the_loop_says_what_it_lacks() {
    let refused = |case: &str, name: &str, by: Tensor| {
        let path = format!("hunyuan_video/{case}/golden_sampler.safetensors");
        let inputs = changed(&path, name, by);
        let settings = LoadSettings::default();
        let component = &transformer::COMPONENT;
        run(
            component,
            case,
            "sampler",
            &*inputs,
            &settings,
            &mut |_, _| {},
        )
        .unwrap_err()
    };
    let value = |value: f32| Tensor::from_vec(vec![value], 1).unwrap();
    assert!(refused("concat", "shift", value(-1.0)).contains("\"shift\" is -1"));
    assert!(refused("concat", "steps", value(0.0)).contains("steps"));
    let frames = Tensor::ones((2, 4, 24), brisk_nn::DType::F32).unwrap();
    let many = frames.reshape(vec![2, 4, 1, 4, 6]).unwrap();
    let many = Tensor::cat(&[many.clone(), many], 2).unwrap();
    assert!(refused("replace", "image_latents", many).contains("several were given"));
    assert!(refused("text", "image_latents", value(1.0)).contains("does not take"));
}
