//! Colours of drawings, changed in a space where equal distances look equal.
//!
//! Oklab (Björn Ottosson, 2020): lightness L, and a, b whose angle is the hue and whose length the chroma.

use super::words::Colour;

/// Chroma below which a colour has no hue to speak of.
const GREY: f32 = 0.045;
/// Degrees on either side of a drawing's main hue that belong to it.
const SAME_HUE: f32 = 50.0;
/// Degrees on either side of a hue that are looked at to find the main one.
const DENSEST: f32 = 20.0;
/// Share of a drawing that its main hue must have for the rest to be left alone.
const MAIN_SHARE: f32 = 0.35;
/// Lightness from which a grey counts as white, and up to which as black.
const WHITE: f32 = 0.9;

/// Lightness, chroma and hue in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lch {
    pub lightness: f32,
    pub chroma: f32,
    pub hue: f32,
}

impl Colour {
    /// The colour that its word means first.
    pub(crate) fn lch(self) -> Lch {
        let (lightness, chroma, hue) = match self {
            Colour::Red => (0.60, 0.22, 27.0),
            Colour::Orange => (0.74, 0.17, 58.0),
            Colour::Yellow => (0.88, 0.17, 98.0),
            Colour::Green => (0.65, 0.18, 143.0),
            Colour::Blue => (0.57, 0.18, 256.0),
            Colour::Purple => (0.53, 0.20, 304.0),
            Colour::Pink => (0.79, 0.13, 352.0),
            Colour::Brown => (0.45, 0.08, 52.0),
        };
        Lch {
            lightness,
            chroma,
            hue,
        }
    }
}

impl Lch {
    pub(crate) fn of(rgb: [u8; 3]) -> Self {
        let [r, g, b] = rgb.map(|byte| {
            let value = f32::from(byte) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        });
        let l = (0.412_221_46 * r + 0.536_332_55 * g + 0.051_445_995 * b).cbrt();
        let m = (0.211_903_5 * r + 0.680_699_5 * g + 0.107_396_96 * b).cbrt();
        let s = (0.088_302_46 * r + 0.281_718_85 * g + 0.629_978_7 * b).cbrt();
        let lightness = 0.210_454_26 * l + 0.793_617_8 * m - 0.004_072_047 * s;
        let a = 1.977_998_5 * l - 2.428_592_2 * m + 0.450_593_7 * s;
        let b = 0.025_904_037 * l + 0.782_771_77 * m - 0.808_675_77 * s;
        Self {
            lightness,
            chroma: a.hypot(b),
            hue: b.atan2(a).to_degrees().rem_euclid(360.0),
        }
    }

    pub(crate) fn rgb(self) -> [u8; 3] {
        let (sin, cos) = self.hue.to_radians().sin_cos();
        let (a, b) = (self.chroma * cos, self.chroma * sin);
        let l = (self.lightness + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
        let m = (self.lightness - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
        let s = (self.lightness - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
        [
            4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s,
            -1.268_438 * l + 2.609_757_4 * m - 0.341_319_4 * s,
            -0.004_196_086_3 * l - 0.703_418_6 * m + 1.707_614_7 * s,
        ]
        .map(|value| {
            let value = value.clamp(0.0, 1.0);
            let encoded = if value <= 0.003_130_8 {
                12.92 * value
            } else {
                1.055 * value.powf(1.0 / 2.4) - 0.055
            };
            (255.0 * encoded).round() as u8
        })
    }

    /// Degrees between two hues, −180 to 180.
    pub(crate) fn hue_from(self, other: f32) -> f32 {
        (self.hue - other + 180.0).rem_euclid(360.0) - 180.0
    }
}

/// What of a drawing takes another colour.
enum Part {
    /// Pixels of a hue near this one.
    Hue(f32),
    /// Everything that has a hue.
    Hues,
    /// Everything but white.
    Dark,
    /// Everything but black.
    Light,
}

impl Part {
    /// The part that gives a drawing its colour. `pixels` are its colours, each with its opacity.
    fn of(pixels: &[(Lch, f32)]) -> Self {
        let area: f32 = pixels.iter().map(|(_, alpha)| alpha).sum();
        let share = |part: &Part| {
            let inside = pixels.iter().filter(|(colour, _)| part.has(*colour));
            inside.map(|(_, alpha)| alpha).sum::<f32>() / area.max(1.0)
        };
        // The densest neighbourhood of hues: how much is in it, and its middle.
        let near = |hue: f32| {
            let mut sums = (0.0, 0.0);
            for (colour, alpha) in pixels.iter().filter(|(colour, _)| colour.chroma > GREY) {
                let turn = colour.hue_from(hue);
                if turn.abs() <= DENSEST {
                    sums.0 += alpha * colour.chroma;
                    sums.1 += alpha * colour.chroma * turn;
                }
            }
            (sums.0, hue + sums.1 / f32::max(sums.0, 1e-6))
        };
        let (_, main) = (0..36)
            .map(|step| near(10.0 * step as f32))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap_or_default();
        let candidates = [Part::Hue(main), Part::Hues, Part::Dark];
        let wide_enough = |part: &Part| share(part) >= MAIN_SHARE;
        candidates
            .into_iter()
            .find(wide_enough)
            .unwrap_or(Part::Light)
    }

    fn has(&self, colour: Lch) -> bool {
        match self {
            Part::Hue(hue) => colour.chroma > GREY && colour.hue_from(*hue).abs() <= SAME_HUE,
            Part::Hues => colour.chroma > GREY,
            Part::Dark => colour.lightness < WHITE,
            Part::Light => colour.lightness > 0.3,
        }
    }
}

/// Gives a drawing another colour: what makes its colour now takes the new hue, chroma and lightness and
/// keeps its shading; outlines, eyes and white stay. `alpha` has a value a pixel.
pub(super) fn recolour(pixels: &mut [[u8; 3]], alpha: &[u8], colour: Colour) {
    let seen: Vec<(Lch, f32)> = pixels
        .iter()
        .zip(alpha)
        .filter(|(_, alpha)| **alpha > 0)
        .map(|(rgb, alpha)| (Lch::of(*rgb), f32::from(*alpha) / 255.0))
        .collect();
    let part = Part::of(&seen);
    let inside: Vec<&(Lch, f32)> = seen.iter().filter(|(c, _)| part.has(*c)).collect();
    let weight: f32 = inside.iter().map(|(_, alpha)| alpha).sum();
    if weight == 0.0 {
        return;
    }
    let mean = |value: fn(&Lch) -> f32| {
        inside
            .iter()
            .map(|(c, alpha)| alpha * value(c))
            .sum::<f32>()
            / weight
    };
    let (lightness, chroma) = (mean(|c| c.lightness), mean(|c| c.chroma));
    let target = colour.lch();
    for (rgb, alpha) in pixels.iter_mut().zip(alpha) {
        let old = Lch::of(*rgb);
        if *alpha == 0 || !part.has(old) {
            continue;
        }
        let (turn, strength) = match part {
            Part::Hue(hue) => (0.25 * old.hue_from(hue), old.chroma / chroma),
            _ => (0.0, 1.0),
        };
        let new = Lch {
            lightness: (target.lightness + 0.6 * (old.lightness - lightness)).clamp(0.12, 0.97),
            chroma: target.chroma * strength.clamp(0.5, 1.15),
            hue: target.hue + turn,
        };
        *rgb = new.rgb();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_come_back() {
        for rgb in [[255, 0, 0], [12, 200, 90], [255; 3], [0; 3], [70, 70, 80]] {
            assert_eq!(Lch::of(rgb).rgb(), rgb);
        }
        // Ottosson's own figures for red.
        let red = Lch::of([255, 0, 0]);
        assert!((red.lightness - 0.628).abs() < 1e-3);
        assert!((red.chroma - 0.2577).abs() < 1e-3);
        assert!((red.hue - 29.23).abs() < 0.1);
    }

    #[test]
    fn a_drawing_takes_its_new_colour_and_keeps_outlines() {
        // A yellow thing with a black outline, white eyes and a small green leaf.
        let mut pixels = vec![[250u8, 200, 40]; 60];
        pixels.extend([[5, 5, 5]; 10]);
        pixels.extend([[255, 255, 255]; 10]);
        pixels.extend([[60, 160, 60]; 10]);
        let alpha = vec![255; pixels.len()];
        for colour in Colour::ALL {
            let mut changed = pixels.clone();
            recolour(&mut changed, &alpha, colour);
            let found = Lch::of(changed[0]);
            assert!(
                found.hue_from(colour.lch().hue).abs() < 12.0,
                "{colour:?}: {found:?}"
            );
            assert!((found.lightness - colour.lch().lightness).abs() < 0.06);
            assert_eq!(changed[60..], pixels[60..], "{colour:?}");
        }
    }

    #[test]
    fn grey_drawings_are_coloured_too() {
        let mut pixels = vec![[60u8, 60, 66]; 50];
        pixels.extend([[255; 3]; 50]);
        let alpha = vec![255; 100];
        recolour(&mut pixels, &alpha, Colour::Red);
        assert!(Lch::of(pixels[0]).hue_from(27.0).abs() < 5.0);
        assert_eq!(pixels[99], [255; 3]);
    }
}
