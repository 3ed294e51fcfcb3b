//! Every network through the registry: what it expects of a file is what loading asks for.

#[path = "common/components.rs"]
mod components;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use brisk_models::component::{
    ComponentConfig, ComponentWeights, Examples, LoadSettings, Port, RandomWeights, Sizes,
};
use brisk_models::registry::{self, COMPONENTS};
use brisk_nn::{Storage, Trace};
use brisk_store::{MappedSource, ModelFolder, Slice, TensorSource};
use brisk_testkit::{fixtures_dir, write_toy_model};

use components::configured;

/// Values of `model_type` in configurations that stand for no network of their own: a whole model's, and
/// one that a tower goes by.
const NO_NETWORKS: [&str; 2] = ["vila_u_llama", "siglip"];

/// Folders below `root` that hold a `config.json`.
fn folders(root: &Path, found: &mut Vec<PathBuf>) {
    if root.join("config.json").exists() {
        found.push(root.to_owned());
    }
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            folders(&path, found);
        }
    }
}

struct Case {
    folder: PathBuf,
    component: &'static brisk_models::component::Component,
    config: Box<dyn ComponentConfig>,
}

fn cases(root: PathBuf) -> Vec<Case> {
    let mut all = Vec::new();
    folders(&root, &mut all);
    let cases = all.into_iter().filter_map(|folder| {
        let bytes = std::fs::read(folder.join("config.json")).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let kind = value.get("model_type").and_then(|kind| kind.as_str());
        if kind.is_some_and(|kind| NO_NETWORKS.contains(&kind)) {
            return None;
        }
        let component = registry::of_config(&value)
            .unwrap_or_else(|| panic!("{}: no network", folder.display()));
        let model = ModelFolder::Disk(folder.parent().unwrap().to_owned());
        let own = folder.file_name().unwrap().to_str().unwrap();
        let config = configured(component, &bytes, &model, own);
        let unknown = component.unknown_keys(&value);
        assert!(unknown.is_empty(), "{}: {unknown:?}", folder.display());
        Some(Case {
            component,
            config: config.unwrap_or_else(|error| panic!("{error}")),
            folder,
        })
    });
    cases.collect()
}

fn fixtures() -> Vec<Case> {
    let toy = write_toy_model(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("toy"), 0.5);
    let folders = [fixtures_dir(), toy];
    folders.into_iter().flat_map(cases).collect()
}

fn weights(folder: &Path) -> Option<Arc<dyn TensorSource>> {
    ModelFolder::Disk(folder.to_owned())
        .open_component("", None)
        .ok()
}

#[test]
fn names_of_components_and_entries_are_no_ones_else() {
    for (index, component) in COMPONENTS.iter().enumerate() {
        for other in &COMPONENTS[index + 1..] {
            for class in component.classes {
                assert!(!other.classes.contains(class), "{class} is twice");
            }
        }
        assert!(!component.entries.is_empty() && !component.folders.is_empty());
    }
}

#[test]
fn every_fixture_is_known_expected_and_recognised() {
    let mut seen = 0;
    for case in fixtures() {
        let name = case.folder.display();
        let expected = case.config.expected_tensors().unwrap();
        let count: usize = expected
            .iter()
            .filter(|(name, _)| !name.contains(".running_"))
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        assert_eq!(count as u64, case.config.parameters(), "{name}");
        let Some(source) = weights(&case.folder) else {
            continue;
        };
        case.config
            .check(source.clone())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = registry::recognise(&*source, &Default::default()).unwrap();
        if let Some((component, _)) = found {
            assert_eq!(component.name, case.component.name, "{name}");
        }
        seen += 1;
    }
    assert!(seen > 40, "only {seen} folders were found");
}

/// The same source without one tensor, with one of another name, or with one of another shape; none where
/// no tensor is expected.
fn damaged(
    case: &Case,
    source: &Arc<dyn TensorSource>,
    how: &str,
) -> Option<Arc<dyn TensorSource>> {
    let names = source.names();
    let expected = case.config.expected_tensors().unwrap();
    // Of a file in another layout any will do, but not one whose name decides which layout it has.
    let read = |name: &String| {
        let plain = expected.iter().any(|(known, _)| names.contains(known));
        !plain || expected.iter().any(|(known, _)| known == name)
    };
    let victim = names
        .iter()
        .rev()
        .find(|name| name.ends_with("weight") && read(name))?;
    let mut map: std::collections::BTreeMap<String, Slice> = names
        .iter()
        .map(|name| (name.clone(), Slice::whole(name.clone())))
        .collect();
    match how {
        "missing" => drop(map.remove(victim)),
        "unexpected" => drop(map.insert("ema.decay".to_owned(), Slice::whole(victim.clone()))),
        _ => {
            let shape = source.info(victim).unwrap().1;
            let other = vec![1, 1, shape.iter().product()];
            map.insert(victim.clone(), Slice::whole(victim.clone()).reshaped(other));
        }
    }
    Some(Arc::new(MappedSource::new(source.clone(), map).unwrap()))
}

/// The check from headers and the load tell the same.
#[test]
fn a_check_says_what_loading_says() {
    for case in fixtures() {
        let Some(source) = weights(&case.folder) else {
            continue;
        };
        for how in ["missing", "unexpected", "misshapen"] {
            let name = format!("{} {how}", case.folder.display());
            let Some(source) = damaged(&case, &source, how) else {
                continue;
            };
            let checked = case.config.check(source.clone()).unwrap_err().to_string();
            let stored = ComponentWeights::Stored(source);
            let parameters = case
                .config
                .weights(&stored, &LoadSettings::default())
                .unwrap();
            let loaded = case
                .config
                .build(&parameters.build().unwrap())
                .unwrap_err()
                .to_string();
            assert_eq!(checked, loaded, "{name}");
        }
    }
}

/// Older files hold the rotary frequencies beside the weights.
#[test]
fn buffers_that_the_configuration_implies_are_left_out() {
    for name in ["dream_0", "sdar_0", "a2d_llama_0", "llada2_0"] {
        let folder = fixtures_dir().join("language_models").join(name);
        let case = cases(folder.clone()).remove(0);
        let source = weights(&folder).unwrap();
        let mut map: std::collections::BTreeMap<String, Slice> = source
            .names()
            .into_iter()
            .map(|name| (name.clone(), Slice::whole(name)))
            .collect();
        let any = map.values().next().unwrap().clone();
        for buffer in [
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "model.rotary_emb.inv_freq",
        ] {
            map.insert(buffer.to_owned(), any.clone());
        }
        let with_buffers = MappedSource::new(source, map).unwrap();
        case.config
            .check(Arc::new(with_buffers))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// At published sizes too, where nothing could be allocated.
#[test]
fn published_shapes_are_listed_without_their_memory() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/configs");
    let mut seen = 0;
    for case in cases(root) {
        let expected = case.config.expected_tensors().unwrap();
        let values = expected
            .iter()
            .filter(|(name, _)| !name.contains(".running_"))
            .map(|(_, shape)| shape.iter().map(|side| *side as u64).product::<u64>());
        assert_eq!(
            values.sum::<u64>(),
            case.config.parameters(),
            "{}",
            case.folder.display()
        );
        seen += 1;
    }
    assert!(seen >= 3, "only {seen}");
}

/// The name of a port's tensor, of a series' first.
fn first_of(port: &Port) -> String {
    match port.is_series() {
        true => format!("{}0", port.name),
        false => port.name.to_owned(),
    }
}

/// Every entry runs on its own example inputs, gives what its ports say, and its parts have costs.
#[test]
fn entries_run_on_their_examples() {
    let random = RandomWeights {
        seed: 0,
        storage: Storage::F32,
        low_bit: false,
    };
    let mut seen = std::collections::BTreeSet::new();
    for case in fixtures() {
        for entry in case.component.entries {
            let beside: Sizes = [("pixels_per_cell", 8)].into_iter().collect();
            let declared = case.config.sizes(entry, &beside);
            let given = declared.iter().map(|size| {
                let small = (16 / size.multiple_of).max(1) * size.multiple_of;
                let value = if size.name == "block" { 8 } else { small };
                (size.name, if size.name == "prefix" { 0 } else { value })
            });
            let sizes = Sizes::complete(&declared, &given.collect()).unwrap();
            let mut normal =
                |count: usize| (0..count).map(|i| (i % 7) as f32 / 7.0 - 0.4).collect();
            let mut examples = Examples::new(&mut normal);
            let inputs = case
                .config
                .example_inputs(entry, &sizes, &beside, &mut examples)
                .unwrap();
            for port in case
                .config
                .inputs(entry)
                .iter()
                .filter(|port| !port.optional)
            {
                let name = first_of(port);
                assert!(inputs.get(&name).is_some(), "{} {name}", entry.name);
            }
            let work = case.config.work(entry, &inputs, &sizes).unwrap();
            let weights = ComponentWeights::Random(random);
            let settings = LoadSettings::default();
            let model = case.config.load(entry, &weights, &settings).unwrap();
            let name = case.folder.display();
            let mut ready = model
                .prepare(&inputs, &sizes)
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let mut parts = std::collections::BTreeSet::new();
            ready
                .run(&mut Trace::parts(&mut |traced, _| {
                    parts.insert(model.part(traced).to_owned());
                }))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            for cost in work.costs.iter().filter(|cost| cost.flops > 0) {
                assert!(
                    parts.contains(&cost.name),
                    "{name}: no {} in {parts:?}",
                    cost.name
                );
            }
            let outputs = ready.outputs().unwrap();
            for port in entry.outputs {
                let name = first_of(port);
                let found = outputs.get(&name).unwrap();
                assert_eq!(found.rank(), port.shape.len(), "{name}");
            }
            seen.insert(entry.name);
        }
    }
    let all: std::collections::BTreeSet<&str> = registry::entries()
        .iter()
        .map(|(_, entry)| entry.name)
        .collect();
    assert_eq!(seen, all);
}
