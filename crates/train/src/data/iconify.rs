//! Drawings of Iconify's icon sets (`icons.json` of the `@iconify-json/*` packages).

use brisk_media::{Cutout, render_svg, render_svg_cutout};
use serde_json::Value;

/// Share of the picture left white on each side.
const MARGIN: f64 = 0.04;
/// The same for drawings that are turned by up to 12 degrees.
const TURNED_MARGIN: f64 = 0.08;
/// Longest side of an icon in its own units, and farthest corner; those of the sets have 32 to 512.
const MAX_SIDE: f64 = 65536.0;

/// An icon of an Iconify set with its aliases resolved.
pub(super) struct Icon {
    pub(super) name: String,
    body: String,
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    horizontal_flip: bool,
    vertical_flip: bool,
    quarter_turns: u64,
}

impl Icon {
    /// Looks `name` up among the icons, then among the aliases; flips of a chain of aliases cancel out, turns add up.
    pub(super) fn find(set: &Value, name: &str) -> std::result::Result<Self, String> {
        let (mut horizontal_flip, mut vertical_flip, mut quarter_turns) = (false, false, 0);
        let mut current = name;
        // No sane set has longer alias chains; the bound ends cycles.
        for _ in 0..8 {
            let icon = &set["icons"][current];
            let alias = &set["aliases"][current];
            let node = if icon.is_object() { icon } else { alias };
            horizontal_flip ^= node["hFlip"].as_bool().unwrap_or(false);
            vertical_flip ^= node["vFlip"].as_bool().unwrap_or(false);
            quarter_turns = (quarter_turns + node["rotate"].as_u64().unwrap_or(0) % 4) % 4;
            if icon.is_object() {
                let body = icon["body"]
                    .as_str()
                    .ok_or_else(|| format!("icon {current:?} has no body"))?;
                let number = |key: &str, default: f64| {
                    icon[key].as_f64().or(set[key].as_f64()).unwrap_or(default)
                };
                let (width, height) = (number("width", 16.0), number("height", 16.0));
                if ![width, height]
                    .iter()
                    .all(|side| (1.0..=MAX_SIDE).contains(side))
                {
                    return Err(format!(
                        "icon {current:?} has the size {width}x{height}; expected 1 to {MAX_SIDE}"
                    ));
                }
                let (left, top) = (number("left", 0.0), number("top", 0.0));
                if ![left, top].iter().all(|edge| edge.abs() <= MAX_SIDE) {
                    return Err(format!(
                        "icon {current:?} begins at {left}, {top}; expected up to {MAX_SIDE}"
                    ));
                }
                return Ok(Self {
                    name: name.to_owned(),
                    body: body.to_owned(),
                    left,
                    top,
                    width,
                    height,
                    horizontal_flip,
                    vertical_flip,
                    quarter_turns,
                });
            }
            current = alias["parent"]
                .as_str()
                .ok_or_else(|| format!("no icon named {current:?}"))?;
        }
        Err(format!("the aliases of icon {name:?} go in a circle"))
    }

    /// A square SVG document with a margin around the drawing, which is turned clockwise by `degrees`.
    fn document(&self, margin: f64, degrees: f64) -> String {
        let side = self.width.max(self.height) / (1.0 - 2.0 * margin);
        let (centre_x, centre_y) = (self.left + self.width / 2.0, self.top + self.height / 2.0);
        let flip = |on: bool| if on { -1 } else { 1 };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
             viewBox=\"{x} {y} {side} {side}\" width=\"{side}\" height=\"{side}\">\
             <g transform=\"translate({centre_x} {centre_y}) rotate({angle}) scale({sx} {sy}) \
             translate({back_x} {back_y})\">{body}</g></svg>",
            x = centre_x - side / 2.0,
            y = centre_y - side / 2.0,
            angle = degrees + 90.0 * self.quarter_turns as f64,
            sx = flip(self.horizontal_flip),
            sy = flip(self.vertical_flip),
            back_x = -centre_x,
            back_y = -centre_y,
            body = self.body,
        )
    }

    /// Planes `[3, size, size]` on white.
    pub(super) fn render(&self, size: usize) -> brisk_media::Result<Vec<u8>> {
        let document = self.document(MARGIN, 0.0);
        render_svg(&document, size, [255; 3]).map(|picture| picture.to_planes())
    }

    /// The drawing alone, turned clockwise by `degrees`, small enough that its corners stay inside.
    pub(super) fn cut_out(&self, size: usize, degrees: f64) -> brisk_media::Result<Cutout> {
        render_svg_cutout(&self.document(TURNED_MARGIN, degrees), size)
    }
}
