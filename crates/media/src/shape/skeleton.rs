//! Centre lines (Zhang and Suen 1984).

use crate::Mask;

/// The pixels that are left when a mask is thinned from both sides at once as long as nothing falls apart.
pub fn skeleton(mask: &Mask) -> Vec<bool> {
    let (width, height) = (mask.width(), mask.height());
    let mut inside = mask.pixels().to_vec();
    loop {
        let mut changed = false;
        for second in [false, true] {
            let gone: Vec<usize> = (0..width * height)
                .filter(|at| inside[*at] && goes(&around(&inside, [width, height], *at), second))
                .collect();
            changed |= !gone.is_empty();
            for at in gone {
                inside[at] = false;
            }
        }
        if !changed {
            return inside;
        }
    }
}

/// The eight neighbours from the one above clockwise; outside of the mask there is nothing.
fn around(inside: &[bool], [width, height]: [usize; 2], at: usize) -> [bool; 8] {
    let (x, y) = ((at % width) as isize, (at / width) as isize);
    [
        (0, -1),
        (1, -1),
        (1, 0),
        (1, 1),
        (0, 1),
        (-1, 1),
        (-1, 0),
        (-1, -1),
    ]
    .map(|(dx, dy)| {
        let (x, y) = (x + dx, y + dy);
        let within = x >= 0 && y >= 0 && (x as usize) < width && (y as usize) < height;
        within && inside[y as usize * width + x as usize]
    })
}

/// Whether a pixel with these neighbours goes in the first or the second half of a pass.
fn goes(near: &[bool; 8], second: bool) -> bool {
    let count = near.iter().filter(|near| **near).count();
    let rises = (0..8).filter(|at| !near[*at] && near[(at + 1) % 8]).count();
    let [above, _, right, _, below, _, left, _] = *near;
    let free = match second {
        false => !(right && below && (above || left)),
        true => !(above && left && (right || below)),
    };
    (2..=6).contains(&count) && rises == 1 && free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_becomes_a_line_and_a_ring_stays_closed() {
        let bar = Mask::new(
            15,
            7,
            (0..105)
                .map(|at| (1..6).contains(&(at / 15)) && (1..14).contains(&(at % 15)))
                .collect(),
        );
        let thin = skeleton(&bar.unwrap());
        let rows: Vec<usize> = (0..105).filter(|at| thin[*at]).map(|at| at / 15).collect();
        assert!(!rows.is_empty() && rows.iter().all(|row| (2..=4).contains(row)));
        let ring = Mask::new(
            15,
            15,
            (0..225)
                .map(|at| {
                    let square =
                        (at % 15usize).abs_diff(7).pow(2) + (at / 15usize).abs_diff(7).pow(2);
                    (12..37).contains(&square)
                })
                .collect(),
        )
        .unwrap();
        let thin = Mask::new(15, 15, skeleton(&ring)).unwrap();
        assert!(thin.area() * 2 < ring.area());
        assert!(thin.holes().iter().any(|hole| *hole));
    }
}
