//! Sizes the models were trained at, and the way from one of those to the size asked for.

use brisk_media::interpolate_bilinear;

/// Heights and widths at 1024 px, keyed by height ÷ width in rising order.
const BINS_1024: &[(f64, usize, usize)] = &[
    (0.25, 512, 2048),
    (0.28, 512, 1856),
    (0.32, 576, 1792),
    (0.33, 576, 1728),
    (0.35, 576, 1664),
    (0.4, 640, 1600),
    (0.42, 640, 1536),
    (0.48, 704, 1472),
    (0.5, 704, 1408),
    (0.52, 704, 1344),
    (0.57, 768, 1344),
    (0.6, 768, 1280),
    (0.68, 832, 1216),
    (0.72, 832, 1152),
    (0.78, 896, 1152),
    (0.82, 896, 1088),
    (0.88, 960, 1088),
    (0.94, 960, 1024),
    (1.0, 1024, 1024),
    (1.07, 1024, 960),
    (1.13, 1088, 960),
    (1.21, 1088, 896),
    (1.29, 1152, 896),
    (1.38, 1152, 832),
    (1.46, 1216, 832),
    (1.67, 1280, 768),
    (1.75, 1344, 768),
    (2.0, 1408, 704),
    (2.09, 1472, 704),
    (2.4, 1536, 640),
    (2.5, 1600, 640),
    (3.0, 1728, 576),
    (4.0, 2048, 512),
];

/// Entries that the 2048 px table has beside the doubled ones.
const EXTRA_2048: &[(f64, usize, usize)] = &[
    (0.26, 1024, 3968),
    (0.27, 1024, 3840),
    (2.89, 3328, 1152),
    (3.11, 3584, 1152),
    (3.62, 3712, 1024),
    (3.75, 3840, 1024),
    (3.88, 3968, 1024),
];

/// The table (ratio, height, width) for a transformer's `sample_size` (16, 32, 64 or 128), if it has one.
pub fn bins(sample_size: usize) -> Option<Vec<(f64, usize, usize)>> {
    let scaled = |table: Vec<(f64, usize, usize)>, up: usize, down: usize| {
        table
            .into_iter()
            .map(|(ratio, height, width)| (ratio, height * up / down, width * up / down))
            .collect()
    };
    let wide = || {
        let mut table: Vec<(f64, usize, usize)> = scaled(BINS_1024.to_vec(), 2, 1);
        table.extend_from_slice(EXTRA_2048);
        table.sort_by(|a, b| a.0.total_cmp(&b.0));
        table
    };
    match sample_size {
        16 => Some(scaled(BINS_1024.to_vec(), 1, 2)),
        32 => Some(BINS_1024.to_vec()),
        64 => Some(wide()),
        128 => Some(scaled(wide(), 2, 1)),
        _ => None,
    }
}

/// Whether a model whose usual side is `side` pixels draws `height` × `width` about as well as what it was trained at:
/// a size of its table, or one of a similar area and shape; without a table, the usual one alone.
pub fn is_near_trained(sample_size: usize, side: usize, height: usize, width: usize) -> bool {
    if (height, width) == (side, side) {
        return true;
    }
    let Some(table) = bins(sample_size) else {
        return false;
    };
    let area = (height * width) as f64 / (side * side) as f64;
    let shape = height as f64 / width as f64;
    let shapes = table.first().zip(table.last());
    shapes.is_some_and(|((flat, ..), (tall, ..))| (*flat..=*tall).contains(&shape))
        && (0.7..=1.4).contains(&area)
}

/// The trained (height, width) whose ratio is nearest to that of `height` × `width`; the first on ties.
/// `None` where the model has no table.
pub fn nearest_bin(sample_size: usize, height: usize, width: usize) -> Option<(usize, usize)> {
    let wanted = height as f64 / width as f64;
    let mut best: Option<(f64, usize, usize)> = None;
    for (ratio, bin_height, bin_width) in bins(sample_size)? {
        let distance = (ratio - wanted).abs();
        if best.is_none_or(|(nearest, ..)| distance < nearest) {
            best = Some((distance, bin_height, bin_width));
        }
    }
    best.map(|(_, bin_height, bin_width)| (bin_height, bin_width))
}

/// Planar values with their size: `values[channel][row][column]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Planes {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `channels × height × width` values.
    pub values: Vec<f32>,
}

/// Scales to cover `height` × `width` (bilinear, no antialias) and cuts the middle out of it.
pub fn resize_and_crop(source: Planes, height: usize, width: usize) -> Planes {
    if (source.height, source.width) == (height, width) {
        return source;
    }
    let channels = source.values.len() / (source.height * source.width);
    let ratio = (height as f64 / source.height as f64).max(width as f64 / source.width as f64);
    let scaled_width = ((source.width as f64 * ratio) as usize).max(width);
    let scaled_height = ((source.height as f64 * ratio) as usize).max(height);
    let scaled = interpolate_bilinear(
        &source.values,
        channels,
        source.height,
        source.width,
        scaled_height,
        scaled_width,
    );
    let left = (scaled_width - width) / 2;
    let top = (scaled_height - height) / 2;
    let mut values = Vec::with_capacity(channels * height * width);
    for channel in 0..channels {
        for row in top..top + height {
            let start = (channel * scaled_height + row) * scaled_width + left;
            values.extend_from_slice(&scaled[start..start + width]);
        }
    }
    Planes {
        height,
        width,
        values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_published_sizes() {
        assert_eq!(bins(16).unwrap().len(), 33);
        assert_eq!(bins(32).unwrap().len(), 33);
        let wide = bins(64).unwrap();
        assert_eq!(wide.len(), 40);
        assert!(wide.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(bins(128).unwrap()[1], (0.26, 2048, 7936));
        assert!(bins(8).is_none());
        for table in [16, 32, 64, 128] {
            assert!(
                bins(table)
                    .unwrap()
                    .iter()
                    .all(|(_, height, width)| height % 32 == 0 && width % 32 == 0)
            );
        }
    }

    #[test]
    fn bins_are_chosen_by_ratio() {
        assert_eq!(nearest_bin(32, 1024, 1024), Some((1024, 1024)));
        assert_eq!(nearest_bin(32, 720, 1280), Some((768, 1344)));
        assert_eq!(nearest_bin(16, 100, 3000), Some((256, 1024)));
        assert_eq!(nearest_bin(64, 1000, 3850), Some((2048 / 2, 3968)));
        // 0.375 lies between 0.35 and 0.4 at equal distance in exact arithmetic; f64 decides as Python does.
        let expected = if (0.35f64 - 0.375).abs() <= (0.4f64 - 0.375).abs() {
            (576, 1664)
        } else {
            (640, 1600)
        };
        assert_eq!(nearest_bin(32, 375, 1000), Some(expected));
    }

    #[test]
    fn crop_takes_the_middle() {
        let source = Planes {
            height: 2,
            width: 4,
            values: (0..8).map(|value| value as f32).collect(),
        };
        let cut = resize_and_crop(source.clone(), 2, 2);
        assert_eq!(
            cut,
            Planes {
                height: 2,
                width: 2,
                values: vec![1.0, 2.0, 5.0, 6.0]
            }
        );
        assert_eq!(resize_and_crop(source.clone(), 2, 4), source);
        let grown = resize_and_crop(source, 4, 4);
        assert_eq!((grown.height, grown.width, grown.values.len()), (4, 4, 16));
    }
}
