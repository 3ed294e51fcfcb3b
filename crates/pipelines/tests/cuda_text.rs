//! Texts decoded on an emulated card: the tokens and passes of the reference generators.

use brisk_nn::{DType, Location, Precision};
use brisk_pipelines::Control;
use brisk_pipelines::families::language::{
    CacheMode, Decoding, LoadOptions, Selection, TextPipeline,
};
use brisk_store::ModelFolder;
use brisk_testkit::{Golden, fixtures_dir};

fn ids(golden: &Golden, name: &str) -> Vec<u32> {
    let ids = golden.get(name).to_dtype(DType::U32).unwrap();
    ids.flatten_all().unwrap().to_vec1().unwrap()
}

/// In f32, in which decisions are the reference's: what is found on the card, and all logits, which guidance mixes.
#[test]
fn texts_are_those_of_the_reference() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    let device = brisk_cuda_emulated::device(Precision::Single, 5);
    let location = Location::from(device.expect("the emulator"));
    let dual = Decoding {
        cache: CacheMode::Dual,
        gen_length: 32,
        block_length: Some(8),
        early_stop: false,
        ..Decoding::default()
    };
    let cases = [
        (
            "llada_0",
            "dual.threshold0.9",
            Decoding {
                selection: Some(Selection::Threshold(0.9)),
                ..dual.clone()
            },
        ),
        (
            "llada_0",
            "prefix.quota8",
            Decoding {
                cache: CacheMode::Prefix,
                steps: Some(8),
                ..dual.clone()
            },
        ),
        (
            "llada_0",
            "none.guidance0.5",
            Decoding {
                cache: CacheMode::None,
                guidance: 0.5,
                steps: Some(32),
                ..dual.clone()
            },
        ),
        (
            "llada_1",
            "dual.factor1",
            Decoding {
                selection: Some(Selection::Factor(1.0)),
                ..dual
            },
        ),
    ];
    for (case, name, request) in cases {
        let folder = ModelFolder::Disk(fixtures_dir().join("language_models").join(case));
        let options = LoadOptions {
            without_tokenizer: true,
            location: location.clone(),
            ..LoadOptions::default()
        };
        let pipeline = TextPipeline::load(&folder, &options).unwrap();
        let golden = Golden::open(&format!("language_models/{case}/generation.safetensors"));
        let prompt = ids(&golden, "inputs.prompt");
        let mut found = pipeline
            .generate(&[prompt], &request, &Control::silent(), &mut |_, _| {})
            .unwrap();
        let found = found.remove(0);
        let wanted = ids(&golden, &format!("{name}.ids"));
        assert_eq!(found.ids, wanted[..found.ids.len()], "{case} {name}");
        let passes = ids(&golden, &format!("{name}.nfe"))[0] as usize;
        assert_eq!(found.forwards, passes, "{case} {name}: forward passes");
    }
}
