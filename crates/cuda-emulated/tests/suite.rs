//! The suite of all kernels on the emulator.

use brisk_cuda::suite::{self, Size};
use brisk_cuda::{Device, Element, Precision};

fn device(precision: Precision, seed: u32) -> Device {
    let device = brisk_cuda_emulated::device(precision, seed);
    device.expect("the emulator")
}

#[test]
fn every_kernel_equals_its_plain_statement() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    let devices = [
        device(Precision::Half, 0),
        device(Precision::Half, 7),
        device(Precision::Single, 3),
        brisk_cuda_emulated::hopper(Precision::Half, 0).expect("the emulator"),
        brisk_cuda_emulated::hopper(Precision::Half, 9).expect("the emulator"),
    ];
    for device in devices {
        let (precision, capability) = (device.precision(), device.card().capability);
        let mut wrong = Vec::new();
        for case in suite::cases() {
            match case.run(&device, Size::Small, false) {
                Ok(outcome) if outcome.passes(precision) => {}
                Ok(outcome) => wrong.push(format!("{outcome:?}")),
                Err(error) => wrong.push(format!("{}: {error}", case.name)),
            }
        }
        assert!(
            wrong.is_empty(),
            "{precision:?}, {capability:?}:\n{}",
            wrong.join("\n")
        );
    }
}

#[test]
fn what_a_real_card_would_not_forgive_is_an_error() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    use brisk_cuda::ops::{self, LinearWeight, Steps};
    let one = device(Precision::Half, 0);
    let x = one.upload(&[1.0; 64], &[2, 32]).unwrap();
    // Operands on two devices, and shapes that do not fit.
    let other = device(Precision::Half, 0);
    let weight = LinearWeight::new(&other.upload(&[1.0; 64], &[2, 32]).unwrap()).unwrap();
    assert!(ops::linear(&x, &weight, &Steps::default()).is_err());
    let weight = LinearWeight::new(&one.upload(&[1.0; 60], &[2, 30]).unwrap()).unwrap();
    assert!(ops::linear(&x, &weight, &Steps::default()).is_err());
    assert!(ops::narrow(&x, 1, 30, 3).is_err() && ops::permute(&x, &[0, 0]).is_err());
    assert!(x.reshape(&[3, 21]).is_err() && one.upload(&[0.0], &[2]).is_err());
    // What nobody wrote is NaN, and the first place that met it is named.
    let unset = one.unset(&[4, 8], Element::F32).unwrap();
    one.check_finite(&x, "stage", "whole").unwrap();
    one.check_finite(&unset, "stage", "unset").unwrap();
    one.check_finite(&unset, "stage", "later").unwrap();
    let found = one.first_not_finite().unwrap();
    assert_eq!(found, Some(("stage".to_owned(), "unset".to_owned())));
    assert_eq!(one.first_not_finite().unwrap(), None);
    // A norm makes the check of what it reads; without one it is made before the values go.
    let vector = one.zeros(&[8], Element::F32).unwrap();
    for normed in [true, false] {
        let stream = one.unset(&[1, 4, 8], Element::F32).unwrap();
        one.check_finite(&stream, "stage", "stream").unwrap();
        if normed {
            ops::layer_norm_modulate(&stream, &vector, &vector, 1e-6).unwrap();
        }
        drop(stream);
        one.zeros(&[1, 4, 8], Element::F32).unwrap();
        let found = one.first_not_finite().unwrap();
        assert_eq!(found, Some(("stage".to_owned(), "stream".to_owned())));
    }
}

#[test]
fn pictures_become_bytes() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    let one = device(Precision::Single, 4);
    let values = [
        -1.0,
        1.0,
        0.0,
        126.5 / 255.0 * 2.0 - 1.0,
        -3.0,
        9.0,
        f32::NAN,
    ];
    let x = one.upload(&values, &[1, 7]).unwrap();
    let bytes = brisk_cuda::ops::signed_bytes(&x).unwrap();
    assert_eq!(bytes, [0, 255, 128, 126, 0, 255, 0]);
}
