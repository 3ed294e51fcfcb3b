//! From where a word is drawn flat to where it lies in a picture, and back.

use brisk_media::shape::Place;

/// A word bent along an arc: `angle` in radians from its first to its last letter, above the middle where it is
/// positive, below it where it is negative; straight at 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bend {
    angle: f64,
    size: [f64; 2],
    /// Of the bent word's box: left and top, as the arc's own places count.
    origin: Place,
    /// Width and height of that box.
    pub bent: [f64; 2],
}

impl Bend {
    /// Of a word of this width and height.
    pub fn new(angle: f64, size: [f64; 2]) -> Self {
        let mut bend = Self {
            angle,
            size,
            origin: [0.0; 2],
            bent: size,
        };
        if angle != 0.0 {
            let edge = (0..=32).map(|step| size[0] * f64::from(step) / 32.0);
            let places: Vec<Place> = edge
                .flat_map(|u| [[u, 0.0], [u, size[1]]])
                .map(|at| bend.on_arc(at))
                .collect();
            let extreme = |axis: usize, sign: f64| {
                let values = places.iter().map(|at| sign * at[axis]);
                sign * values.fold(f64::INFINITY, f64::min)
            };
            bend.origin = [extreme(0, 1.0), extreme(1, 1.0)];
            bend.bent = [0, 1].map(|axis| extreme(axis, -1.0) - bend.origin[axis]);
        }
        bend
    }

    fn radius(&self) -> f64 {
        self.size[0] / self.angle.abs()
    }

    fn on_arc(&self, [u, v]: Place) -> Place {
        let side = self.angle.signum();
        let turned = (u / self.size[0] - 0.5) * self.angle.abs();
        let out = self.radius() + side * (self.size[1] / 2.0 - v);
        [out * turned.sin(), -side * out * turned.cos()]
    }

    /// From the flat word to the bent one's box.
    pub fn apply(&self, at: Place) -> Place {
        if self.angle == 0.0 {
            return at;
        }
        let [x, y] = self.on_arc(at);
        [x - self.origin[0], y - self.origin[1]]
    }

    /// The way back.
    pub fn undo(&self, [x, y]: Place) -> Place {
        if self.angle == 0.0 {
            return [x, y];
        }
        let side = self.angle.signum();
        let [x, y] = [x + self.origin[0], -side * (y + self.origin[1])];
        let turned = x.atan2(y);
        let out = x.hypot(y);
        let u = (turned / self.angle.abs() + 0.5) * self.size[0];
        [u, self.size[1] / 2.0 - side * (out - self.radius())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: Place, b: Place) {
        assert!(
            (a[0] - b[0]).abs() < 1e-6 && (a[1] - b[1]).abs() < 1e-6,
            "{a:?} {b:?}"
        );
    }

    #[test]
    fn what_is_bent_is_straightened_again() {
        for angle in [0.0, 0.9, -1.3] {
            let bend = Bend::new(angle, [120.0, 30.0]);
            for at in [[0.0, 0.0], [120.0, 30.0], [60.0, 15.0], [33.0, 2.0]] {
                let bent = bend.apply(at);
                near(bend.undo(bent), at);
                assert!(
                    (-1e-6..=bend.bent[0] + 1e-6).contains(&bent[0]),
                    "{angle} {bent:?}"
                );
                assert!(
                    (-1e-6..=bend.bent[1] + 1e-6).contains(&bent[1]),
                    "{angle} {bent:?}"
                );
            }
        }
        // Above the middle: the middle letter is the highest.
        let bend = Bend::new(0.9, [120.0, 30.0]);
        assert!(bend.apply([60.0, 15.0])[1] < bend.apply([0.0, 15.0])[1]);
    }
}
