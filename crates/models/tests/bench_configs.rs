//! The configurations in `bench/configs` are the published ones: their models have the published
//! numbers of parameters.

use brisk_models::dcae::AutoencoderConfig;
use brisk_models::gemma2::Gemma2Config;
use brisk_models::hart;
use brisk_models::language_model::LanguageModelConfig;
use brisk_models::sana::SanaConfig;

fn read(path: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/configs/");
    std::fs::read(format!("{folder}{path}")).unwrap_or_else(|error| panic!("{path}: {error}"))
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
}
