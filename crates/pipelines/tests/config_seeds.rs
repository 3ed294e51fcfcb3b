//! Every bad configuration of the fuzzer's seeds is refused by every reader it could reach.

use brisk_models::registry::COMPONENTS;
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
        // Each reader sees each file; the error is that of the one it was made for.
        let mut errors: Vec<([&str; 2], String)> = Vec::new();
        for component in COMPONENTS {
            if let Err(error) = (component.open)(&bytes, &name) {
                errors.push(([component.folders[0], component.name], error.to_string()));
            }
        }
        if let Err(error) = SchedulerConfig::from_bytes(&bytes, &name) {
            errors.push((["scheduler"; 2], error.to_string()));
        }
        let meant = match name.split('_').next() {
            Some("autoencoder") => "vae",
            Some("gemma") => "text_encoder",
            Some("hart") => "llm",
            Some("language") => "language_model",
            Some("sam") => "sam",
            Some("clip") => "CLIP text encoder",
            Some("llava") => "LLaVA text encoder",
            Some("video") if name.starts_with("video_vae") => "HunyuanVideo autoencoder",
            Some("video") => "HunyuanVideo transformer",
            Some("craft") => "detector",
            Some("crnn") => "recogniser",
            Some("scheduler") => "scheduler",
            Some("projector") => "mm_projector",
            Some("tokenizer") => "tokenizer",
            Some("tower") => "vision_tower",
            Some("class") => "class-conditional transformer",
            _ => "SANA transformer",
        };
        let error = errors
            .into_iter()
            .find(|(readers, _)| readers.contains(&meant));
        let error = error.map(|(_, error)| error);
        let error = error.unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(
            error.contains(&name),
            "{name}: the message does not name the file: {error}"
        );
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} seeds were found");
}

#[test]
fn bad_files_of_boxes_are_refused_by_name() {
    brisk_testkit::check_seeds("mask_prompts", true, |name, bytes| {
        let text = std::str::from_utf8(bytes).map_err(|error| format!("{name}: {error}"))?;
        brisk_pipelines::MaskPrompt::read_all(text, name).map_err(|error| error.to_string())
    });
}

#[test]
fn bad_annotations_of_words_are_refused_by_name() {
    brisk_testkit::check_seeds("words", true, |name, bytes| {
        let text = std::str::from_utf8(bytes).map_err(|error| format!("{name}: {error}"))?;
        brisk_pipelines::request::WordFile::read(text, name).map_err(|error| error.to_string())
    });
}

#[test]
fn bad_runs_are_refused() {
    brisk_testkit::check_seeds("mask_runs", false, |_, bytes| {
        let (size, text) = bytes.split_first_chunk::<2>().ok_or("no size")?;
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        let runs = brisk_media::mask::Runs::from_text(size[0].into(), size[1].into(), text);
        runs.map_err(|error| error.to_string())
    });
}
