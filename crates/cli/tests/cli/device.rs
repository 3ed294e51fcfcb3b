//! `--device`, on machines with a card and without.

use crate::harness::{Place, fixture};

/// A probe that would need a card.
fn probe(place: &Place, component: &str, device: &str) -> crate::harness::Outcome {
    let latent = brisk_nn::Tensor::zeros((1, 8, 2, 2), brisk_nn::DType::F32).unwrap();
    let inputs = [("latent", latent)].into();
    brisk_testkit::save_tensors(place.path("in.safetensors"), &inputs);
    place.run(&[
        "probe",
        "--model",
        &fixture("dcae/a"),
        "--component",
        component,
        "--inputs",
        "in.safetensors",
        "--outputs",
        "out.safetensors",
        "--device",
        device,
    ])
}

#[test]
fn a_card_that_is_not_there_is_an_error() {
    let place = Place::new();
    let outcome = probe(&place, "vae.decode", "cuda:99");
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    // Without a driver it says so, with one how many cards there are.
    let known = [
        "no NVIDIA driver was found",
        "NVIDIA driver",
        "there is no card 99",
    ];
    assert!(
        known.iter().any(|text| outcome.stderr.contains(text)),
        "{}",
        outcome.stderr
    );
    assert!(!place.path("out.safetensors").exists());
    let outcome = probe(&place, "vae.decode", "gpu");
    assert_ne!(outcome.code, Some(0));
    assert!(
        outcome.stderr.contains("auto, cpu, cuda or cuda:N"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn auto_computes_with_a_card_or_without() {
    let place = Place::new();
    let outcome = probe(&place, "vae.decode", "auto");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(place.path("out.safetensors").exists());
}

#[test]
fn the_doctor_says_which_cards_there_are() {
    let place = Place::new();
    let document = place.ok(&["doctor", "--json"]).json();
    let nvidia = &document["nvidia"];
    let cards = nvidia["cards"].as_array().unwrap();
    assert_eq!(cards.is_empty(), nvidia["reason"].is_string(), "{nvidia}");
}

/// The driver is opened when it is needed; nothing of CUDA is asked for at the start.
#[cfg(target_os = "linux")]
#[test]
fn the_binary_asks_for_no_library_of_cuda() {
    let Ok(listed) = std::process::Command::new("ldd")
        .arg(env!("CARGO_BIN_EXE_brisk"))
        .output()
    else {
        return; // a system without ldd
    };
    let listed = String::from_utf8_lossy(&listed.stdout).to_lowercase();
    let named = ["cuda", "cublas", "nvrtc", "cudnn", "nvidia"];
    assert!(named.iter().all(|name| !listed.contains(name)), "{listed}");
}
