//! The configurations in `bench/configs` are the published ones: their models have the published
//! numbers of parameters.

use brisk_models::class_conditional;
use brisk_models::clip::ClipModelConfig;
use brisk_models::dcae::AutoencoderConfig;
use brisk_models::gemma2::Gemma2Config;
use brisk_models::hart;
use brisk_models::hunyuan_video;
use brisk_models::language_model::LanguageModelConfig;
use brisk_models::qwen2::Qwen2Config;
use brisk_models::sam;
use brisk_models::sana::SanaConfig;
use brisk_models::vila_u;

fn read(path: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/configs/");
    std::fs::read(format!("{folder}{path}")).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn clip_has_the_published_number_of_parameters() {
    let name = "clip-vit-large-patch14";
    let config = ClipModelConfig::from_json(&read(&format!("{name}/config.json")), name).unwrap();
    assert_eq!(config.parameters(), 427_616_513);
}

#[test]
fn parameters_are_the_published_ones() {
    for (name, expected) in [
        ("sana-0.6b", 591_747_872),
        ("sana-1.6b", 1_604_462_752),
        ("sana-sprint-0.6b", 593_501_216),
    ] {
        let bytes = read(&format!("{name}/transformer/config.json"));
        let transformer = SanaConfig::from_json(&bytes, name).unwrap();
        assert_eq!(transformer.parameters(), expected, "{name}");

        let bytes = read(&format!("{name}/text_encoder/config.json"));
        let text = Gemma2Config::from_json(&bytes, name).unwrap();
        assert_eq!(text.parameters() / 1_000_000, 2614, "{name}");
        assert_eq!(text.hidden_size, transformer.caption_channels);

        let bytes = read(&format!("{name}/vae/config.json"));
        let vae = AutoencoderConfig::from_json(&bytes, name).unwrap();
        let halves = vae.parameters();
        let total = halves.encoder + halves.decoder;
        assert_eq!(total / 10_000, 31_225, "{name}");
    }
}

#[test]
fn language_models_have_the_published_shapes() {
    let config = |name: &str| {
        let bytes = read(&format!("{name}/config.json"));
        LanguageModelConfig::from_json(&bytes, name).unwrap()
    };
    let llada = config("llada-8b");
    assert_eq!(llada.parameters(), 8_015_581_184);
    let qwen = config("qwen3-0.6b-diffusion");
    assert_eq!(qwen.parameters(), 596_049_920);
    // A block of 32 tokens: 440 million weights of layers and a head of 155 million.
    let costs = qwen.pass_cost(32, 512, 32);
    let parameters: u64 = costs.iter().map(|cost| cost.parameters).sum();
    assert_eq!(parameters / 1_000_000, 440 + 155);
    let attention = 28 * 4 * 2048 * 32 * 512;
    let flops: u64 = costs.iter().map(|cost| cost.flops).sum();
    assert_eq!(flops, 2 * 32 * parameters + attention);
}

/// The tokenizer's discriminator stands in its file, and is not counted.
#[test]
fn hart_has_the_published_shape() {
    for (component, expected) in [
        (&hart::COMPONENT, 732_399_168),
        (&hart::tokenizer::COMPONENT, 108_948_355),
    ] {
        let file = format!("hart-0.7b-1024px/{}/config.json", component.folders[0]);
        let config = (component.open)(&read(&file), &file).unwrap();
        assert_eq!(config.parameters(), expected, "{file}");
    }
    // Qwen2-1.5B without its head, which is its embedding.
    let file = "hart-0.7b-1024px/text_encoder/config.json";
    let config = Qwen2Config::from_json(&read(file), file).unwrap();
    assert_eq!(config.parameters_without_head(), 1_543_714_304);
}

/// Without what only compares pictures with texts: SigLIP's text half, its last layer and its head.
#[test]
fn vila_u_has_the_published_shape() {
    let parameters = |component: &brisk_models::component::Component, folder: &str| {
        let bytes = read(&format!("vila-u-7b-256/{folder}/config.json"));
        (component.open)(&bytes, folder).unwrap().parameters()
    };
    assert_eq!(parameters(&vila_u::LANGUAGE_MODEL, "llm"), 6_738_448_384);
    // 290.8 million of SigLIP, 16.8 of the codebook, 42.7 of the decoder, 527.1 of the depth transformer.
    assert_eq!(parameters(&vila_u::TOWER, "vision_tower") / 100_000, 8_773);
    assert_eq!(
        parameters(&vila_u::PROJECTOR, "mm_projector") / 100_000,
        209
    );
    let bytes = read("vila-u-7b-256/vision_tower/config.json");
    let tower = vila_u::tower::TowerConfig::from_json(&bytes, "tower").unwrap();
    assert_eq!(tower.head.parameters() / 100_000, 5_271);
    assert_eq!((tower.places(), tower.decoded_size()), (256, [256, 256]));
    // The depth transformer by its cache, and without one, as the reference runs it.
    let flops = |step_by_step| {
        let parts = tower.head.cost(1, step_by_step);
        parts.iter().map(|part| part.flops).sum::<u64>() as f64 / 2e9
    };
    assert!((flops(true) - 2.07).abs() < 0.05, "{}", flops(true));
    assert_eq!(flops(true), flops(false));
}

/// Image encoder, prompt encoder and mask decoder; the frequencies of positions are counted as parameters.
#[test]
fn segment_anything_has_the_published_shapes() {
    for (name, title, encoder) in [
        ("sam-vit-b", "ViT-B", 89_670_912),
        ("sam-vit-h", "ViT-H", 637_026_048),
        ("mobile-sam", "MobileSAM", 5_743_892),
        ("efficientvit-sam-l0", "EfficientViT-SAM-L0", 30_728_224),
        ("efficientvit-sam-xl0", "EfficientViT-SAM-XL0", 112_893_344),
    ] {
        let file = format!("{name}/config.json");
        let config = (sam::COMPONENT.open)(&read(&file), &file).unwrap();
        let image_encoder = sam::COMPONENT.entry("image_encoder").unwrap();
        assert_eq!(config.facts()["image_encoder"], title);
        assert_eq!(config.entry_parameters(image_encoder), encoder, "{file}");
        assert_eq!(
            config.parameters(),
            encoder + 6_220 + 4_058_340 + 256,
            "{file}"
        );
    }
}

#[test]
fn clips_have_the_published_shapes() {
    for (component, parameters) in [
        (&hunyuan_video::transformer::COMPONENT, 12_810_991_680),
        (&hunyuan_video::autoencoder::COMPONENT, 246_478_803),
    ] {
        let file = format!(
            "hunyuan-video-i2v-33ch/{}/config.json",
            component.folders[0]
        );
        let config = (component.open)(&read(&file), &file).unwrap();
        assert_eq!(config.parameters(), parameters, "{file}");
    }
}

/// By the checkpoint's name alone, as its file has it.
#[test]
fn class_conditional_transformers_have_the_published_shape() {
    let file = "dc-ae-f64c128-in-1.0-uvit-h-in-512px/config.json";
    let config = (class_conditional::COMPONENT.open)(&read(file), file).unwrap();
    assert_eq!(config.parameters(), 500_868_992);
    let facts = config.facts();
    assert_eq!(facts["latent_side"], 8);
    assert_eq!(facts["autoencoder"], "dc-ae-f64c128-in-1.0");
}
