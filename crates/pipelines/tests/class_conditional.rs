//! Class-conditional models from classes to pictures: against the authors' samplers, and against themselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use brisk_media::Picture;
use brisk_models::dcae::{self, Autoencoder, Halves};
use brisk_nn::{Tensor, WeightsBuilder, ops};
use brisk_pipelines::families::class_conditional::options::SAMPLER;
use brisk_pipelines::options::{Latents, Options, keys};
use brisk_pipelines::reproduce::Laboratory;
use brisk_pipelines::{
    Control, EvaluationPictures, GeneratedImage, ImageModel, ImageRequest, NamedPicture,
    OpenSettings, Result, registry,
};
use brisk_store::ModelFolder;
use brisk_testkit::{fixtures_dir, load_tensors, relative_l2, values};

const CHANNELS: usize = 4;
const SIDE: usize = 4;
/// Pixels of a cell of the autoencoder.
const RATIO: usize = 8;

fn network(name: &str) -> PathBuf {
    fixtures_dir().join("class_conditional").join(name)
}

fn autoencoder() -> PathBuf {
    fixtures_dir().join("pipelines/sana/vae")
}

fn copy(from: &Path, to: &Path, names: &[&str]) {
    std::fs::create_dir_all(to).unwrap();
    for name in names {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// A model's folder: a network of the fixtures and an autoencoder of as many channels.
fn folder(place: &Path, name: &str) -> PathBuf {
    let folder = place.join(name);
    let weights = match name {
        "u_sit_trained" => "pytorch_model.bin",
        _ => "model.safetensors",
    };
    copy(&network(name), &folder, &["config.json", weights]);
    let files = ["config.json", "diffusion_pytorch_model.safetensors"];
    copy(&autoencoder(), &folder.join("vae"), &files);
    folder
}

fn open_with(folder: &Path, options: Options) -> Result<Box<dyn ImageModel>> {
    let folder = ModelFolder::Disk(folder.to_owned());
    registry::open_image(&folder, &OpenSettings::new(options))
}

fn open(folder: &Path) -> Box<dyn ImageModel> {
    open_with(folder, Options::new()).unwrap()
}

fn request(prompts: &[&str]) -> ImageRequest {
    ImageRequest {
        prompts: prompts.iter().map(|prompt| (*prompt).to_owned()).collect(),
        options: Options::new(),
    }
}

fn draw(model: &mut dyn ImageModel, request: &ImageRequest) -> Vec<GeneratedImage> {
    model.draw(request, &Control::silent()).unwrap()
}

fn refused(model: &mut dyn ImageModel, request: &ImageRequest, words: &[&str]) {
    let error = model.draw(request, &Control::silent()).unwrap_err();
    let error = error.to_string();
    for word in words {
        assert!(error.contains(word), "{word}: {error}");
    }
}

fn planes(image: &GeneratedImage) -> &[f32] {
    &image.latents.as_ref().unwrap().values
}

/// What the autoencoder makes of latents `[B,C,h,w]` as a network sees them, in bytes.
fn decoded(latents: &Tensor) -> Vec<f32> {
    let bytes = std::fs::read(autoencoder().join("config.json")).unwrap();
    let config = dcae::open(&bytes, "config.json").unwrap();
    let source = ModelFolder::Disk(autoencoder()).open_component("", None);
    let weights = WeightsBuilder::from_source(source.unwrap())
        .build()
        .unwrap();
    let model = Autoencoder::load(&config, &weights, Halves::DecoderOnly).unwrap();
    let latents = ops::to_nhwc(latents).unwrap();
    let latents = latents.affine(1.0 / config.scaling_factor, 0.0).unwrap();
    let sample = model.decode(&latents).unwrap();
    let bytes = sample.affine(127.5, 127.5).unwrap();
    values(&bytes.clamp(0.0, 255.0).unwrap())
}

/// From given noise to the authors' latents, and to what the autoencoder makes of them.
#[test]
fn classes_become_the_authors_latents() {
    let place = tempfile::tempdir().unwrap();
    for (name, file, steps, guidance) in [
        ("u_vit", "golden_sampler", Some(30), 1.5),
        ("u_vit", "golden_sampler_unguided", Some(8), 1.0),
        ("sit", "golden_sampler", Some(9), 1.4),
    ] {
        let golden = load_tensors(network(name).join(format!("{file}.safetensors")));
        let latents = &golden["inputs.latents"];
        let given = Latents {
            shape: [2, CHANNELS, SIDE, SIDE],
            values: values(latents),
        };
        let request = request(&["4", "7"])
            .with(&keys::LATENTS, Arc::new(given))
            .with(&keys::GUIDANCE, guidance)
            .with_some(&keys::STEPS, steps);
        let mut model = open(&folder(place.path(), name));
        let images = draw(&mut *model, &request);
        let wanted = &golden["outputs.sample"];
        for (row, image) in images.iter().enumerate() {
            let wanted = wanted.narrow(0, row, 1).unwrap();
            let off = relative_l2(planes(image), &values(&wanted));
            assert!(off < 1e-4, "{name}/{file} {row}: {off}");
            let picture = &image.picture;
            assert_eq!(
                (picture.width, picture.height),
                (SIDE * RATIO, SIDE * RATIO)
            );
            for (found, wanted) in picture.pixels.iter().zip(decoded(&wanted)) {
                assert!((f32::from(*found) - wanted).abs() <= 1.0, "{name} {row}");
            }
        }
    }
}

/// Several pictures and prompts at once are what each is alone, whatever is drawn on the way.
#[test]
fn a_picture_is_drawn_by_its_own_seed() {
    let place = tempfile::tempdir().unwrap();
    for (name, steps) in [
        ("u_vit", Some(6)),
        ("dit", Some(5)),
        ("u_sit", None),
        ("u_sit_stochastic", Some(4)),
    ] {
        let mut model = open(&folder(place.path(), name));
        let many = request(&["3", "9"])
            .with(&keys::IMAGES, 2)
            .with(&keys::SEED, 40)
            .with_some(&keys::STEPS, steps);
        let plan = model.plan(&many).unwrap();
        assert_eq!(plan.steps, steps.unwrap_or(0), "{name}");
        let together = model.generate(&plan, &Control::silent()).unwrap();
        let seeds: Vec<u64> = together.iter().map(|image| image.seed).collect();
        assert_eq!(seeds, [40, 41, 42, 43]);
        for (index, image) in together.iter().enumerate() {
            let alone = request(&[&image.prompt])
                .with(&keys::SEED, image.seed)
                .with_some(&keys::STEPS, steps);
            let alone = draw(&mut *model, &alone);
            let off = relative_l2(planes(&alone[0]), planes(image));
            assert!(off < 1e-5, "{name} {index}: {off}");
            let described = plan.describe(index);
            assert_eq!(described["seed"], image.seed);
            assert_eq!(described.contains_key("steps"), steps.is_some(), "{name}");
            assert_eq!(described.contains_key("sampler"), name.starts_with("u_sit"));
        }
        assert_ne!(planes(&together[0]), planes(&together[1]), "{name}");
    }
}

/// The authors' trainer keeps running averages beside the network.
#[test]
fn all_layouts_of_a_folder_are_read() {
    let place = tempfile::tempdir().unwrap();
    let plain = draw(&mut *open(&folder(place.path(), "u_sit")), &request(&["1"]));
    let trained = draw(
        &mut *open(&folder(place.path(), "u_sit_trained")),
        &request(&["1"]),
    );
    assert_eq!(planes(&plain[0]), planes(&trained[0]));
    // The network in a folder of its own, and the autoencoder elsewhere.
    let apart = place.path().join("apart");
    let files = ["config.json", "model.safetensors"];
    copy(&network("u_sit"), &apart.join("transformer"), &files);
    let error = open_with(&apart, Options::new()).err().unwrap().to_string();
    for word in ["vae/config.json", "`vae`"] {
        assert!(error.contains(word), "{error}");
    }
    let vae = autoencoder().display().to_string();
    let mut apart = open_with(&apart, Options::new().with(&keys::VAE, vae)).unwrap();
    let images = draw(&mut *apart, &request(&["1"]));
    assert_eq!(planes(&plain[0]), planes(&images[0]));
}

#[test]
fn names_of_the_folder_are_prompts() {
    let place = tempfile::tempdir().unwrap();
    let path = folder(place.path(), "u_vit");
    let names: Vec<String> = (0..10).map(|class| format!("thing {class}, it")).collect();
    std::fs::write(
        path.join("classes.json"),
        serde_json::to_vec(&names).unwrap(),
    )
    .unwrap();
    let few = |prompt: &str| request(&[prompt]).with(&keys::STEPS, 2);
    let mut model = open(&path);
    let by_name = draw(&mut *model, &few("Thing 4"));
    let by_number = draw(&mut *model, &few("4"));
    assert_eq!(by_name[0].picture, by_number[0].picture);
    assert!(model.known_prompts().is_some());
    refused(&mut *model, &few("it"), &["prompt", "0 and 1"]);
    refused(&mut *model, &few("10"), &["prompt", "0 to 9"]);
    refused(&mut *model, &few("cat"), &["prompt", "cat", "thing 0"]);
    std::fs::write(path.join("classes.json"), "[\"a\"]").unwrap();
    let error = open_with(&path, Options::new()).err().unwrap().to_string();
    assert!(
        error.contains("classes.json") && error.contains("10 classes"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_drawn_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let noise = folder(place.path(), "u_vit");
    let mut model = open(&noise);
    let one = || request(&["1"]);
    refused(
        &mut *model,
        &one().with(&keys::WIDTH, 64),
        &["width", "32×32"],
    );
    refused(
        &mut *model,
        &one().with(&SAMPLER, "sde".to_owned()),
        &["sampler", "flow"],
    );
    let flow = folder(place.path(), "u_sit");
    let mut model = open(&flow);
    refused(
        &mut *model,
        &one().with(&keys::STEPS, 4),
        &["steps", "dopri5", "heun2"],
    );
    let heun = one().with(&SAMPLER, "heun2".to_owned());
    refused(
        &mut *model,
        &heun.clone().with(&keys::STEPS, 1),
        &["steps", "ODE_heun2"],
    );
    // The same field by another way.
    let (found, wanted) = (
        draw(&mut *model, &heun.with(&keys::STEPS, 200)),
        draw(&mut *model, &one()),
    );
    let off = relative_l2(planes(&found[0]), planes(&wanted[0]));
    assert!(off < 5e-3, "{off}");
    // An autoencoder of other channels, and a network without a class of none.
    let config = flow.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let other = fixtures_dir().join("dcae/a").display().to_string();
    let error = open_with(&flow, Options::new().with(&keys::VAE, other))
        .err()
        .unwrap();
    assert!(error.to_string().contains("`in_channels` is 4"), "{error}");
    let always = text.replace("\"class_dropout_prob\": 0.1", "\"class_dropout_prob\": 0.0");
    assert_ne!(always, text);
    std::fs::write(&config, always).unwrap();
    let mut model = open(&flow);
    refused(
        &mut *model,
        &one().with(&keys::GUIDANCE, 2.0),
        &["guidance", "`class_dropout_prob`"],
    );
}

/// Of random networks the claim is measured all the same; it does not appear, and what is missing is named.
#[test]
fn the_paper_s_claim_is_measured() {
    let place = tempfile::tempdir().unwrap();
    let deep = folder(&place.path().join("deep"), "u_vit");
    let shallow = folder(&place.path().join("shallow"), "u_vit");
    let side = SIDE * RATIO;
    let picture = |index: usize| NamedPicture {
        prompt: (index % 10).to_string(),
        picture: Picture::new(side, side, vec![10 * index as u8; 3 * side * side]).unwrap(),
    };
    let known = EvaluationPictures {
        trained: (0..20).map(picture).collect(),
        held_out: Vec::new(),
    };
    let claim = registry::reproductions()
        .find(|one| one.paper == "dc-ae")
        .unwrap();
    assert_eq!(claim.beside, Some("class-f8"));
    let run = |beside: &Path| {
        (claim.run)(&Laboratory {
            model: ModelFolder::Disk(deep.clone()),
            find: &|_| Ok(ModelFolder::Disk(beside.to_owned())),
            problems: &|_, _| Vec::new(),
            judge_masks: &|_, _, _| Ok(Vec::new()),
            judge_clips: &|_, _, _, _| Ok(Vec::new()),
            scene_prompts: &|_| Vec::new(),
            shows: &|_, _| Ok(Vec::new()),
            distance: &|drawn, wanted| {
                assert_eq!((drawn.len(), wanted.len()), (20, 20));
                Ok(1.5)
            },
            pair_distance: &|_, _| Ok(Vec::new()),
            scratch: place.path().to_owned(),
            control: &Control::silent(),
        })
    };
    let refused = run(&shallow).unwrap_err().to_string();
    assert!(refused.contains("0 true pictures"), "{refused}");
    for (name, bytes) in known.to_files().unwrap() {
        std::fs::write(deep.join(name), bytes).unwrap();
    }
    let evidence = run(&shallow).unwrap();
    assert_eq!(evidence.rows.len(), 5);
    assert!(
        evidence.rows[0].what.contains("18 tokens"),
        "{:?}",
        evidence.rows
    );
    assert!(evidence.rows[1].here == "1.5000" && !evidence.appears);
    let other = fixtures_dir().join("pipelines/sana");
    let refused = run(&other).unwrap_err().to_string();
    assert!(refused.contains("class-conditional"), "{refused}");
}
