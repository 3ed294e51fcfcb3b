//! Parts of a picture in which small things are looked for again.

/// A part of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// 0: the whole picture; layer n has 4ⁿ parts.
    pub layer: usize,
    /// Left, top, right and bottom in pixels; the last two are beyond the part.
    pub bounds: [usize; 4],
}

impl Crop {
    /// Width and height.
    pub fn size(&self) -> [usize; 2] {
        let [left, top, right, bottom] = self.bounds;
        [right - left, bottom - top]
    }

    /// Whether bounds of a mask in it, last pixels included, come near to an edge that is not the picture's.
    pub(super) fn cuts(&self, bounds: [usize; 4], picture: [usize; 2]) -> bool {
        const NEAR: usize = 20;
        let [left, top, ..] = self.bounds;
        let offset = [left, top, left, top];
        let whole = [0, 0, picture[0], picture[1]];
        (0..4).any(|side| {
            let at = bounds[side] + offset[side];
            let near = |edge: usize| at.abs_diff(edge) <= NEAR;
            near(self.bounds[side]) && !near(whole[side])
        })
    }
}

/// The whole picture of this width and height, then the parts of each layer: twice as many along a side as of
/// the layer before, which overlap by `overlap` of the shorter side, halved from layer to layer.
pub fn crops([width, height]: [usize; 2], layers: usize, overlap: f64) -> Vec<Crop> {
    let mut found = vec![Crop {
        layer: 0,
        bounds: [0, 0, width, height],
    }];
    for layer in 1..=layers {
        let count = 1usize << layer;
        let common = (overlap * width.min(height) as f64 * (2.0 / count as f64)) as usize;
        let length = |whole: usize| (common * (count - 1) + whole).div_ceil(count);
        let (wide, high) = (length(width), length(height));
        for (column, row) in (0..count).flat_map(|column| (0..count).map(move |row| (column, row)))
        {
            let (left, top) = ((wide - common) * column, (high - common) * row);
            let bounds = [
                left,
                top,
                (left + wide).min(width),
                (top + high).min(height),
            ];
            found.push(Crop { layer, bounds });
        }
    }
    found
}
