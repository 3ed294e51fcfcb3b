//! Every bad configuration of the fuzzer's seeds is refused by every reader it could reach.

use brisk_models::dcae::AutoencoderConfig;
use brisk_models::gemma2::Gemma2Config;
use brisk_models::language_model::LanguageModelConfig;
use brisk_models::sana::SanaConfig;
use brisk_models::sana_controlnet::SanaControlNetConfig;
use brisk_pipelines::diffusion::schedulers::SchedulerConfig;
use std::path::Path;

#[test]
fn seeds_give_errors_and_never_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/config");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let autoencoder = AutoencoderConfig::from_json(&bytes, &name);
        let gemma = Gemma2Config::from_json(&bytes, &name);
        let language = LanguageModelConfig::from_json(&bytes, &name);
        let sana = SanaConfig::from_json(&bytes, &name);
        let control = SanaControlNetConfig::from_json(&bytes, &name);
        let scheduler = SchedulerConfig::from_bytes(&bytes, &name);
        // What a file of this kind would be read as.
        let error = match &name {
            name if name.starts_with("autoencoder") => autoencoder.err().map(|e| e.to_string()),
            name if name.starts_with("gemma") => gemma.err().map(|e| e.to_string()),
            name if name.starts_with("language") => language.err().map(|e| e.to_string()),
            name if name.starts_with("scheduler") => scheduler.err().map(|e| e.to_string()),
            _ => sana.and(control).err().map(|e| e.to_string()),
        };
        let error = error.unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(
            error.contains(&name),
            "{name}: the message does not name the file: {error}"
        );
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} seeds were found");
}
