//! Operations on masks against scipy and scikit-image (`reference/shapes.py`).

use brisk_media::Mask;
use brisk_media::mask::Regions;
use brisk_media::shape::{distances, skeleton, smallest_rectangle, watershed};
use safetensors::SafeTensors;

struct Case<'a> {
    file: SafeTensors<'a>,
    size: [usize; 2],
}

impl Case<'_> {
    fn bytes<const N: usize>(&self, name: &str) -> Vec<[u8; N]> {
        let view = self.file.tensor(name).unwrap();
        view.data().as_chunks().0.to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name)
            .into_iter()
            .map(f32::from_le_bytes)
            .collect()
    }

    fn whole(&self, name: &str) -> Vec<usize> {
        self.bytes(name)
            .into_iter()
            .map(|bytes| i64::from_le_bytes(bytes) as usize)
            .collect()
    }

    fn flags(&self, name: &str) -> Vec<bool> {
        self.bytes::<1>(name)
            .into_iter()
            .map(|[byte]| byte == 1)
            .collect()
    }

    fn mask(&self) -> Mask {
        Mask::new(self.size[0], self.size[1], self.flags("mask")).unwrap()
    }
}

/// Runs a check on every case.
fn each(check: impl Fn(&Case<'_>)) {
    for name in ["small", "wide", "large"] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/media/shapes");
        let bytes = std::fs::read(format!("{folder}/{name}.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let shape = file.tensor("mask").unwrap().shape().to_vec();
        check(&Case {
            file,
            size: [shape[1], shape[0]],
        });
    }
}

#[test]
fn regions_are_numbered_as_scipy_numbers_them() {
    each(|case| {
        let counts = case.whole("counts");
        let by_sides = Regions::by_sides(&case.mask(), true);
        assert_eq!(by_sides.labels(), case.whole("labels"));
        assert_eq!(by_sides.sizes().len(), counts[0]);
        let joined = Regions::of(&case.mask(), true);
        assert_eq!(joined.labels(), case.whole("joined"));
        assert_eq!(joined.sizes().len(), counts[1]);
        assert_eq!(case.mask().holes(), case.flags("holes"));
    });
}

#[test]
fn distances_are_scipys() {
    each(|case| {
        let found = distances(&case.mask());
        for (found, wanted) in found.iter().zip(case.floats("distances")) {
            assert!((found - wanted).abs() <= 1e-5 * wanted, "{found} {wanted}");
        }
    });
}

#[test]
fn skeletons_are_those_of_the_published_rule() {
    each(|case| assert_eq!(skeleton(&case.mask()), case.flags("skeleton")));
}

#[test]
fn basins_are_scikit_images() {
    each(|case| {
        let relief: Vec<f32> = case
            .floats("relief")
            .into_iter()
            .map(|value| -value)
            .collect();
        let markers: Vec<u32> = case
            .whole("markers")
            .into_iter()
            .map(|marker| marker as u32)
            .collect();
        let found = watershed(&relief, &markers, case.mask().pixels(), case.size[0]);
        let found: Vec<usize> = found.into_iter().map(|basin| basin as usize).collect();
        assert_eq!(found, case.whole("basins"));
    });
}

#[test]
fn the_smallest_rectangle_has_the_least_area() {
    each(|case| {
        let joined = case.whole("joined");
        let places: Vec<[f64; 2]> = (0..joined.len())
            .filter(|at| joined[*at] == 1)
            .map(|at| [(at % case.size[0]) as f64, (at / case.size[0]) as f64])
            .collect();
        let wanted = f64::from_le_bytes(case.bytes("least_area")[0]);
        let [a, b, c, _] = smallest_rectangle(&places).unwrap();
        let side = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        let area = side(a, b) * side(b, c);
        assert!(
            wanted > 0.0 && (area - wanted).abs() < 1e-6 * wanted,
            "{area} {wanted}"
        );
    });
}
