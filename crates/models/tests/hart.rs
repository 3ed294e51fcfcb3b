//! HART against the goldens of its reference, and against itself.

#[path = "common/components.rs"]
mod components;

use std::cell::RefCell;
use std::collections::BTreeMap;

use brisk_models::component::{
    Component, ComponentConfig, ComponentWeights, LoadSettings, NamedTensors, Neighbour,
};
use brisk_models::hart::{self, Generator, Greedy, Request, tokenizer, transformer};
use brisk_nn::{DType, KeyValueType, Tensor, Trace, Weights, ops};
use brisk_store::ModelFolder;
use brisk_testkit::{Golden, assert_close, fixtures_dir, values};

const CASES: [&str; 3] = ["base", "norms", "own_phi"];
const TOLERANCE: f64 = 1e-4;

fn folder(case: &str) -> ModelFolder {
    ModelFolder::Disk(fixtures_dir().join("hart").join(case))
}

/// Runs an entry on a golden's inputs.
fn run(
    component: &Component,
    case: &str,
    entry: &str,
    golden: &str,
    see: &mut dyn FnMut(&str, &Tensor),
) -> NamedTensors {
    let source = components::inputs(&format!("hart/{case}/{golden}.safetensors"), "inputs.");
    components::run(component, &folder(case), entry, source, see)
}

#[track_caller]
fn equal_codes(outputs: &NamedTensors, golden: &Golden, label: &str) {
    let scales = golden.names("outputs.codes.").len();
    for scale in 0..scales {
        let found = outputs.required(&format!("codes.{scale}")).unwrap();
        let wanted = golden.get(&format!("outputs.codes.{scale}"));
        assert_eq!(
            found.dims(),
            wanted.dims(),
            "{label}: codes of scale {scale}"
        );
        assert_eq!(
            values(found),
            values(&wanted),
            "{label}: codes of scale {scale}"
        );
    }
    assert!(outputs.get(&format!("codes.{scales}")).is_none(), "{label}");
}

#[test]
fn the_tokenizer_agrees_block_by_block() {
    for case in CASES {
        let path = format!("hart/{case}/golden_tokenizer.safetensors");
        let mut golden = Golden::open(&path);
        let mut compared = 0;
        for entry in ["tokenizer.encode", "tokenizer.decode"] {
            let mut see = |name: &str, x: &Tensor| {
                if !["quantizer", "quant_conv", "post_quant_conv"].contains(&name) {
                    let x = ops::to_nchw(x).unwrap();
                    assert!(
                        golden.compare(&format!("blocks.{name}"), &x, TOLERANCE),
                        "{name}"
                    );
                    compared += 1;
                }
            };
            let outputs = run(
                &tokenizer::COMPONENT,
                case,
                entry,
                "golden_tokenizer",
                &mut see,
            );
            if entry == "tokenizer.encode" {
                equal_codes(&outputs, &golden, case);
                for name in ["latent", "f_hat"] {
                    let found = outputs.required(name).unwrap();
                    assert!(golden.compare(&format!("outputs.{name}"), found, TOLERANCE));
                }
            } else {
                let found = outputs.required("sample").unwrap();
                assert!(golden.compare("outputs.clamped", found, TOLERANCE));
            }
        }
        let blocks = golden.names("blocks.").into_iter();
        let blocks = blocks.filter(|name| name.contains("coder."));
        assert_eq!(blocks.count(), compared, "{case}");
        golden.report();
    }
}

/// Sums after each scale, what the transformer is taught, and the rest that the diffusion head learns.
#[test]
fn the_quantizer_agrees_scale_by_scale() {
    for case in CASES {
        let path = format!("hart/{case}/golden_tokenizer.safetensors");
        let mut golden = Golden::open(&path);
        let config = folder(case).read("tokenizer/config.json").unwrap();
        let config = tokenizer::TokenizerConfig::from_json(&config, "config.json").unwrap();
        let model = quantizer_of(case, &config, tokenizer::Parts::Encoder);
        let (quantizer, scales) = (model.quantizer(), config.scales().unwrap());
        let sample = ops::to_nhwc(&golden.get("inputs.sample")).unwrap();
        let latent = model.latent(&sample, &mut Trace::none()).unwrap();
        let batch = latent.dim(0).unwrap();
        let encoded = quantizer.encode(&scales, &latent).unwrap();
        let flat = |x: &Tensor| {
            let (_, height, width, channels) = x.dims4().unwrap();
            x.reshape((batch, height * width, channels)).unwrap()
        };
        assert!(golden.compare("outputs.residual", &flat(&encoded.rest), TOLERANCE));
        let mut sum = Tensor::zeros(latent.dims(), DType::F32).unwrap();
        for (scale, (codes, side)) in encoded.codes.iter().zip(scales.sides()).enumerate() {
            let words = quantizer.codewords(codes, batch, *side).unwrap();
            sum = (sum + quantizer.spread(&scales, scale, &words).unwrap()).unwrap();
            let found = ops::to_nchw(&sum).unwrap();
            assert!(golden.compare(&format!("blocks.f_hat.{scale}"), &found, TOLERANCE));
        }
        let taught = quantizer.taught(&scales, &encoded.codes, batch).unwrap();
        let taught: Vec<Tensor> = taught.iter().map(flat).collect();
        let taught = Tensor::cat(&taught, 1).unwrap();
        assert!(golden.compare("blocks.teacher_input", &taught, TOLERANCE));
    }
}

fn quantizer_of(
    case: &str,
    config: &tokenizer::TokenizerConfig,
    parts: tokenizer::Parts,
) -> tokenizer::Tokenizer {
    let source = folder(case).open_component("tokenizer", None).unwrap();
    let source = tokenizer::plain_names(source).unwrap();
    tokenizer::Tokenizer::load(config, &Weights::from_source(source), parts).unwrap()
}

/// What a trace shows scale by scale, put together by name.
fn collected<'a>(
    pieces: &'a RefCell<BTreeMap<String, Vec<Tensor>>>,
) -> impl FnMut(&str, &Tensor) + 'a {
    |name: &str, x: &Tensor| {
        let mut pieces = pieces.borrow_mut();
        pieces.entry(name.to_owned()).or_default().push(x.clone());
    }
}

#[test]
fn the_transformer_agrees_block_by_block() {
    for case in CASES {
        let path = format!("hart/{case}/golden_transformer.safetensors");
        let mut golden = Golden::open(&path);
        let pieces = RefCell::default();
        let mut see = collected(&pieces);
        let outputs = run(
            &hart::COMPONENT,
            case,
            "transformer",
            "golden_transformer",
            &mut see,
        );
        let batch = golden.get("inputs.context").dim(0).unwrap();
        for (name, pieces) in pieces.borrow().iter() {
            // Sequences stand one after another in a pass.
            let rows = |x: &Tensor| {
                let width = *x.dims().last().unwrap();
                x.reshape((batch, (), width)).unwrap()
            };
            let whole: Vec<Tensor> = pieces.iter().map(rows).collect();
            let whole = Tensor::cat(&whole, 1).unwrap();
            if name != "head_nm" {
                golden.compare(&format!("blocks.{name}"), &whole, TOLERANCE);
            }
        }
        for name in ["hidden", "logits"] {
            let found = outputs.required(name).unwrap();
            assert!(golden.compare(&format!("outputs.{name}"), found, TOLERANCE));
        }
        let (_, compared) = golden.summary();
        // The context's embedding, the codes', blocks with their two parts, and both outputs.
        let blocks = golden.names("blocks.blocks.").len();
        assert_eq!(compared, blocks + 4, "{case}");
        golden.report();
    }
}

#[test]
fn the_diffusion_head_agrees() {
    for case in CASES {
        let path = format!("hart/{case}/golden_diffusion_head.safetensors");
        let mut golden = Golden::open(&path);
        let mut seen = BTreeMap::new();
        let mut see = |name: &str, x: &Tensor| drop(seen.insert(name.to_owned(), x.clone()));
        let outputs = run(
            &hart::COMPONENT,
            case,
            "diffusion_head",
            "golden_diffusion_head",
            &mut see,
        );
        for name in golden.names("blocks.") {
            let found = &seen[name.strip_prefix("blocks.").unwrap()];
            assert!(golden.compare(&name, found, TOLERANCE), "{name}");
        }
        let found = outputs.required("sample").unwrap();
        assert!(golden.compare("outputs.sample", found, TOLERANCE));
    }
}

#[test]
fn the_sampler_steps_as_the_reference() {
    for case in CASES {
        let golden = Golden::open(&format!("hart/{case}/golden_diffusion_head.safetensors"));
        let get = |name: &str| values(&golden.get(&format!("schedule.{name}")));
        let times = get("timesteps");
        let schedule = transformer::DiffusionSchedule::cosine(times.len());
        let remains = get("alphas_cumprod");
        for (index, step) in schedule.steps().iter().enumerate() {
            assert_eq!(step.time as f32, times[index]);
            for (found, wanted) in [
                (step.log_largest, get("betas")[index].ln()),
                (
                    step.log_smallest,
                    get("posterior_log_variance_clipped")[index],
                ),
                (step.mean_clean, get("posterior_mean_coef1")[index]),
                (step.mean_value, get("posterior_mean_coef2")[index]),
                (step.from_value, (1.0 / remains[index]).sqrt()),
            ] {
                let off = (found - wanted).abs();
                assert!(
                    off <= 2e-5 * wanted.abs().max(1.0),
                    "{index}: {found} {wanted}"
                );
            }
        }
    }
}

#[test]
fn greedy_generation_draws_what_the_reference_draws() {
    for case in CASES {
        for name in ["golden_generate", "golden_generate_smooth"] {
            let mut golden = Golden::open(&format!("hart/{case}/{name}.safetensors"));
            let outputs = run(&hart::COMPONENT, case, "generate", name, &mut |_, _| ());
            equal_codes(&outputs, &golden, &format!("{case} {name}"));
            for name in ["latent", "image"] {
                let found = outputs.required(name).unwrap();
                assert!(golden.compare(&format!("outputs.{name}"), found, TOLERANCE));
            }
            // A level of a picture is 1/255.
            let image = values(outputs.required("image").unwrap());
            let wanted = golden.find("outputs.image").map(|wanted| values(&wanted));
            for (found, wanted) in image.iter().zip(wanted.unwrap_or_default()) {
                assert!((found - wanted).abs() < 1.0 / 255.0);
            }
            golden.report();
        }
    }
}

fn generator(case: &str) -> Generator {
    let folder = folder(case);
    let read = |file: &str| folder.read(file).unwrap();
    let own = tokenizer::TokenizerConfig::from_json(&read("tokenizer/config.json"), "t").unwrap();
    let config = transformer::TransformerConfig::from_json(&read("llm/config.json"), "l").unwrap();
    let codewords = transformer::Codewords {
        count: own.vocab_size,
        width: own.z_channels,
    };
    let weights = Weights::from_source(folder.open_component("llm", None).unwrap());
    let transformer = transformer::Transformer::load(&config, codewords, &weights).unwrap();
    Generator::new(
        transformer,
        quantizer_of(case, &own, tokenizer::Parts::Decoder),
    )
}

/// All scales in one pass are the scales one after another; places that are left out change no scale before
/// them, and what stands for no text is what guidance is away from.
#[test]
fn what_is_taught_is_what_is_drawn() {
    for case in ["base", "norms"] {
        let generator = generator(case);
        let (model, quantizer) = (generator.transformer(), generator.tokenizer().quantizer());
        let golden = Golden::open(&format!("hart/{case}/golden_transformer.safetensors"));
        let context = golden.get("inputs.context");
        let masks = golden.mask("inputs.context_mask");
        let scales = model.scales();
        let (batch, last) = (masks.len(), scales.side().pow(2));
        let codes: Vec<Vec<u32>> = (0..scales.count())
            .map(|scale| {
                let count = batch * scales.sides()[scale].pow(2);
                (0..count)
                    .map(|at| (at * 37 + scale) as u32 % 640)
                    .collect()
            })
            .collect();
        let sums = quantizer.taught(scales, &codes, batch).unwrap();
        let (mut progress, first) = model
            .begin(
                &context,
                &masks,
                true,
                KeyValueType::F32,
                &mut Trace::none(),
            )
            .unwrap();
        let mut hidden = vec![first];
        let mut inputs = Vec::new();
        for sum in &sums {
            let next = model.next(&mut progress, sum, &mut Trace::none());
            hidden.push(next.unwrap());
            let (_, side, _, width) = sum.dims4().unwrap();
            inputs.push(sum.reshape((batch, side * side, width)).unwrap());
        }
        let hidden = Tensor::cat(&hidden, 1).unwrap();
        let logits = model
            .logits(&progress, &hidden, &mut Trace::none())
            .unwrap();
        let inputs = Tensor::cat(&inputs, 1).unwrap();
        let earlier = inputs.dim(1).unwrap() - last;
        let taught = |absent: bool, kept: &[usize]| {
            let own = kept.iter().map(|place| (earlier + place) as u32);
            let places: Vec<u32> = (0..earlier as u32).chain(own).collect();
            let places = Tensor::from_vec(places.clone(), places.len()).unwrap();
            let lesson = transformer::Lesson {
                context: &context,
                masks: &masks,
                absent: &vec![absent; batch],
                inputs: &inputs.index_select(&places, 1).unwrap(),
                kept: &vec![kept.to_vec(); batch],
            };
            model.taught(&lesson).unwrap()
        };
        let all: Vec<usize> = (0..last).collect();
        for (absent, first) in [(false, 0), (true, batch)] {
            let found = taught(absent, &all);
            let wanted = logits.narrow(0, first, batch).unwrap();
            assert_close("logits", &found.logits, &wanted, TOLERANCE);
            let wanted = hidden.narrow(0, first, batch).unwrap();
            assert_close("hidden", &found.hidden, &wanted, TOLERANCE);
        }
        // In another order, and some alone.
        let turned: Vec<usize> = all.iter().rev().copied().collect();
        let (straight, turned) = (taught(false, &all).logits, taught(false, &turned).logits);
        let total = straight.dim(1).unwrap();
        let row = |logits: &Tensor, at: usize| logits.narrow(1, at, 1).unwrap();
        assert_close(
            "turned",
            &row(&straight, total - 1),
            &row(&turned, total - last),
            TOLERANCE,
        );
        let some = taught(false, &[1, 3]).logits;
        let before = |logits: &Tensor| logits.narrow(1, 0, total - last).unwrap();
        assert_eq!(some.dim(1).unwrap(), total - last + 2);
        assert_close("before", &before(&some), &before(&straight), TOLERANCE);
    }
}

#[test]
fn lessons_that_do_not_fit_are_refused() {
    let generator = generator("base");
    let golden = Golden::open("hart/base/golden_transformer.safetensors");
    let context = golden.get("inputs.context");
    let masks = golden.mask("inputs.context_mask");
    let model = generator.transformer();
    let width = model.codewords().width;
    let earlier: usize = model
        .scales()
        .sides()
        .iter()
        .map(|side| side * side)
        .sum::<usize>()
        - 1
        - model.scales().side().pow(2);
    for (kept, places) in [(vec![0, 9999], 2), (vec![0, 1], 3)] {
        let inputs = Tensor::zeros((masks.len(), earlier + places, width), DType::F32).unwrap();
        let lesson = transformer::Lesson {
            context: &context,
            masks: &masks,
            absent: &vec![false; masks.len()],
            inputs: &inputs,
            kept: &vec![kept; masks.len()],
        };
        let error = model.taught(&lesson).unwrap_err().to_string();
        assert!(error.contains("places of the last scale"), "{error}");
    }
}

/// Codes that were drawn, given again, lead to the same codes behind them.
#[test]
fn late_scales_are_drawn_anew_from_given_codes() {
    let generator = generator("base");
    let golden = Golden::open("hart/base/golden_generate.safetensors");
    let (context, masks) = (
        golden.get("inputs.context"),
        golden.mask("inputs.context_mask"),
    );
    let draw = |given: &[Vec<u32>], guidance: f64, residual: bool| {
        let request = Request {
            context: &context,
            masks: &masks,
            guidance,
            given,
            residual,
            steps: 8,
            kept_as: KeyValueType::F32,
        };
        let mut chooser = Greedy {
            smooth: false,
            noise: Vec::new(),
        };
        let mut scales = Vec::new();
        let mut done = |scale, _: &Tensor| {
            scales.push(scale);
            Ok(())
        };
        let drawn = generator
            .draw(&request, &mut chooser, &mut done, &mut Trace::none())
            .unwrap();
        assert_eq!(scales, [0, 1, 2, 3, 4]);
        drawn
    };
    let whole = draw(&[], 4.5, true);
    for count in 1..=5 {
        let again = draw(&whole.codes[..count], 4.5, true);
        assert_eq!(again.codes, whole.codes, "{count}");
        assert_close("latent", &again.latent, &whole.latent, 1e-6);
    }
    // Without the residual the latent is the sum of the codewords.
    let plain = draw(&[], 4.5, false);
    assert_eq!(plain.codes, whole.codes);
    let (quantizer, scales) = (
        generator.tokenizer().quantizer(),
        generator.transformer().scales(),
    );
    let mut sum = Tensor::zeros(plain.latent.dims(), DType::F32).unwrap();
    for (scale, codes) in plain.codes.iter().enumerate() {
        let words = quantizer
            .codewords(codes, 2, scales.sides()[scale])
            .unwrap();
        sum = (sum + quantizer.spread(scales, scale, &words).unwrap()).unwrap();
    }
    assert_close("sum", &plain.latent, &sum, 1e-6);
    // Other codes lead elsewhere, and so does another strength of guidance.
    let mut other = whole.codes[..2].to_vec();
    other[1]
        .iter_mut()
        .for_each(|code| *code = (*code + 17) % 640);
    assert_ne!(draw(&other, 4.5, true).codes[2..], whole.codes[2..]);
    assert_ne!(draw(&[], 0.0, true).codes, whole.codes);
}

/// A row draws the same alone and beside others.
#[test]
fn rows_do_not_know_of_each_other() {
    let generator = generator("base");
    let golden = Golden::open("hart/base/golden_generate.safetensors");
    let (context, masks) = (
        golden.get("inputs.context"),
        golden.mask("inputs.context_mask"),
    );
    let draw = |context: &Tensor, masks: &[Vec<bool>]| {
        let request = Request {
            context,
            masks,
            guidance: 3.0,
            given: &[],
            residual: true,
            steps: 8,
            kept_as: KeyValueType::F32,
        };
        let mut chooser = Greedy {
            smooth: true,
            noise: Vec::new(),
        };
        let done = &mut |_, _: &Tensor| Ok(());
        generator
            .draw(&request, &mut chooser, done, &mut Trace::none())
            .unwrap()
    };
    let both = draw(&context, &masks);
    for row in 0..2 {
        let own = context.narrow(0, row, 1).unwrap().contiguous().unwrap();
        let alone = draw(&own, &masks[row..=row]);
        let latent = both.latent.narrow(0, row, 1).unwrap();
        assert_close("latent", &alone.latent, &latent, TOLERANCE);
        for (both, alone) in both.codes.iter().zip(&alone.codes) {
            let count = alone.len();
            assert_eq!(both[row * count..][..count], alone[..]);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let folder = folder("base");
    let alone = |file: &str, component: &Component| {
        (component.open)(&folder.read(file).unwrap(), file).unwrap()
    };
    // Without the tokenizer beside it.
    let config = alone("llm/config.json", &hart::COMPONENT);
    let weights = ComponentWeights::Stored(folder.open_component("llm", None).unwrap());
    let entry = hart::COMPONENT.entry("generate").unwrap();
    let load = |config: &dyn ComponentConfig| {
        let loaded = config.load(entry, &weights, &LoadSettings::default());
        loaded.err().unwrap().to_string()
    };
    let error = load(&*config);
    assert!(
        error.contains("tokenizer/config.json") && error.contains("llm/config.json"),
        "{error}"
    );
    // The diffusion head needs none, and knows its channels by its file.
    let head = hart::COMPONENT.entry("diffusion_head").unwrap();
    let model = config
        .load(head, &weights, &LoadSettings::default())
        .unwrap();
    let mut inputs = NamedTensors::default();
    for (name, shape) in [
        ("noisy", &[2, 11][..]),
        ("timestep", &[2]),
        ("condition", &[2, 64]),
    ] {
        let values = vec![0.5; shape.iter().product()];
        inputs.insert_floats(name, shape, values).unwrap();
    }
    let error = model.run(&inputs).unwrap_err().to_string();
    for word in ["noisy", "11 channels", "have 12"] {
        assert!(error.contains(word), "{error}");
    }
    // With another's.
    let mut config = alone("llm/config.json", &hart::COMPONENT);
    let other = self::folder("norms");
    let neighbour = Neighbour {
        folder: "tokenizer",
        config: &other.read("tokenizer/config.json").unwrap(),
        label: "tokenizer/config.json",
        weights: &|| other.open_component("tokenizer", None),
    };
    config.attach(&neighbour).unwrap();
    let error = load(&*config);
    for word in ["`vocab_size` is 620", "640", "tokenizer/config.json"] {
        assert!(error.contains(word), "{error}");
    }
    // A picture that the scales do not give.
    let config = components::opened(&tokenizer::COMPONENT, &folder);
    let entry = tokenizer::COMPONENT.entry("tokenizer.encode").unwrap();
    let weights = ComponentWeights::Stored(folder.open_component("tokenizer", None).unwrap());
    let model = config
        .load(entry, &weights, &LoadSettings::default())
        .unwrap();
    let mut inputs = NamedTensors::default();
    inputs
        .insert_floats("sample", &[1, 3, 16, 16], vec![0.0; 768])
        .unwrap();
    let error = model.run(&inputs).unwrap_err().to_string();
    for word in ["16×16", "12×12", "[1, 2, 3, 4, 6]", "patch_nums"] {
        assert!(error.contains(word), "{error}");
    }
}
