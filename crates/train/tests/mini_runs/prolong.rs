//! Runs that go on behind their end.

use super::*;

#[test]
fn a_run_is_prolonged_from_its_end_with_its_schedule_anew() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let run = |prolong: Option<u64>, out: &Path, control: &Control| {
        let mut recipe = text_recipe(10);
        recipe.training.prolong = prolong;
        train_text(&recipe, None, out, control)
    };
    let message = run(Some(10), &out("none"), &Control::silent()).unwrap_err();
    assert!(
        message
            .to_string()
            .contains("no run that could be prolonged"),
        "{message}"
    );

    let whole = out("whole");
    run(None, &whole, &stopping_at(5)).unwrap_err();
    let message = run(Some(10), &whole, &Control::silent()).unwrap_err();
    assert!(
        message.to_string().contains("at step 5 and not over"),
        "{message}"
    );
    run(None, &whole, &Control::silent()).unwrap();
    copy(&whole, &out("parted"));
    run(Some(10), &whole, &Control::silent()).unwrap();
    let state = |out: &Path| {
        checkpoint::latest(&out.join("checkpoints"))
            .unwrap()
            .unwrap()
            .state
    };
    let after = state(&whole);
    assert_eq!(
        (after.step, after.ended, after.finished),
        (20, Some(10), true)
    );
    let rates: Vec<(u64, f64)> = read_log(&whole.join("training_log.jsonl"))
        .unwrap()
        .iter()
        .map(|entry| (entry.step, entry.learning_rate))
        .collect();
    let rate = |step: u64| rates.iter().find(|(at, _)| *at == step).unwrap().1;
    // The cosine falls twice, and the warm-up comes before each.
    assert_eq!(rate(5), rate(15));
    assert_eq!(rate(10), rate(20));
    // The same command once more changes nothing, and a stopped one goes on.
    run(Some(10), &whole, &Control::silent()).unwrap();
    assert_eq!(state(&whole).step, 20);
    let parted = out("parted");
    let stopped = run(Some(10), &parted, &stopping_at(15)).unwrap_err();
    assert_stopped(&stopped, &parted, 15);
    run(Some(10), &parted, &Control::silent()).unwrap();
    assert_same_checkpoint(&whole, &parted);
    // Counted from where it ended first.
    run(Some(12), &whole, &Control::silent()).unwrap();
    assert_eq!(state(&whole).step, 22);
}

/// Copies a folder.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}
