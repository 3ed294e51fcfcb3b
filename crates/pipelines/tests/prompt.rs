//! Prompt encoding against the reference pipeline (`reference/pipelines.py`).

use brisk_pipelines::families::sana::prompt as sana_prompt;
use brisk_text::Tokenizer;
use safetensors::SafeTensors;

fn read(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/../../fixtures/pipelines/sana/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn integers(file: &SafeTensors<'_>, name: &str) -> Vec<i64> {
    let data = file.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

#[test]
fn ids_and_selected_rows_agree_with_the_reference() {
    let tokenizer = Tokenizer::from_bytes(&read("tokenizer/tokenizer.json"), "fixture").unwrap();
    let cases: serde_json::Value = serde_json::from_slice(&read("text.json")).unwrap();
    let bytes = read("text.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let cases = cases.as_object().unwrap();
    assert!(cases.len() >= 8);
    for (name, case) in cases {
        let window = case["max_sequence_length"].as_u64().unwrap() as usize;
        let lines = case["complex_human_instruction"].as_array();
        let instruction = lines.map(|lines| {
            lines
                .iter()
                .map(|line| line.as_str().unwrap())
                .collect::<Vec<_>>()
                .join("\n")
        });
        let prompt = case["prompt"].as_str().unwrap();
        let encoded =
            sana_prompt::encode(&tokenizer, prompt, instruction.as_deref(), window).unwrap();

        let ids: Vec<i64> = encoded.ids.iter().map(|id| i64::from(*id)).collect();
        assert_eq!(ids, integers(&file, &format!("{name}.input_ids")), "{name}");
        // The reference picks these positions of the padded sequence; its mask says which of them are real.
        let padded = integers(&file, &format!("{name}.padded_length"))[0] as usize;
        let picked = std::iter::once(0).chain(padded + 1 - window..padded);
        let mask = integers(&file, &format!("{name}.prompt_mask"));
        let kept: Vec<usize> = picked
            .zip(mask)
            .filter(|(_, mask)| *mask == 1)
            .map(|(at, _)| at)
            .collect();
        assert_eq!(encoded.selected, kept, "{name}");
        assert_eq!(encoded.truncated, name.ends_with("truncated"), "{name}");
    }
}
