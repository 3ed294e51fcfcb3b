//! The suite of all kernels on the emulator.

use brisk_cuda::suite::{self, Size};
use brisk_cuda::{Device, Precision};

fn device(precision: Precision, seed: u32) -> Device {
    let device = brisk_cuda_emulated::device(precision, seed);
    device.expect("the emulator")
}

#[test]
fn every_kernel_equals_its_plain_statement() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    for (precision, seed) in [
        (Precision::Half, 0),
        (Precision::Half, 7),
        (Precision::Single, 3),
    ] {
        let device = device(precision, seed);
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
            "{precision:?}, order {seed}:\n{}",
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
    let unset = one.unset(&[4, 8], brisk_cuda::Element::F32).unwrap();
    one.check_finite(&x, "stage", "whole").unwrap();
    one.check_finite(&unset, "stage", "unset").unwrap();
    one.check_finite(&unset, "stage", "later").unwrap();
    let found = one.first_not_finite().unwrap();
    assert_eq!(found, Some(("stage".to_owned(), "unset".to_owned())));
    assert_eq!(one.first_not_finite().unwrap(), None);
}
