//! How alike two pictures are.

use crate::{Error, Picture, Result};

fn same_size(a: &Picture, b: &Picture) -> Result<()> {
    if (a.width, a.height) == (b.width, b.height) {
        return Ok(());
    }
    Err(Error::Mismatch(a.width, a.height, b.width, b.height))
}

/// Peak signal to noise ratio in dB over all pixels and channels; infinite for equal pictures.
pub fn psnr(a: &Picture, b: &Picture) -> Result<f64> {
    same_size(a, b)?;
    let total: u64 = a
        .pixels
        .iter()
        .zip(&b.pixels)
        .map(|(x, y)| u64::from(x.abs_diff(*y)).pow(2))
        .sum();
    let mean = total as f64 / a.pixels.len() as f64;
    Ok(10.0 * (255.0 * 255.0 / mean).log10())
}

/// Radius of the 11x11 Gaussian window.
const RADIUS: usize = 5;
const WINDOW: usize = 2 * RADIUS + 1;

/// Structural similarity, 1 for equal pictures: Gaussian window 11x11 with sigma 1.5, mean over positions where the
/// window fits, then over channels.
///
/// The numbers agree with scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
/// use_sample_covariance=False, data_range=255)`. Pictures below 11 pixels a side are an error.
pub fn ssim(a: &Picture, b: &Picture) -> Result<f64> {
    same_size(a, b)?;
    let (width, height) = (a.width, a.height);
    if width < WINDOW || height < WINDOW {
        return Err(Error::Argument(format!(
            "SSIM needs pictures of at least 11x11 pixels, got {width}x{height}"
        )));
    }
    const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
    const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
    let kernel = gaussian();
    let mut total = 0.0;
    for channel in 0..3 {
        let plane = |p: &Picture| -> Vec<f64> {
            p.pixels
                .iter()
                .skip(channel)
                .step_by(3)
                .map(|v| f64::from(*v))
                .collect()
        };
        let product =
            |x: &[f64], y: &[f64]| -> Vec<f64> { x.iter().zip(y).map(|(x, y)| x * y).collect() };
        let (x, y) = (plane(a), plane(b));
        let blurred = |values: &[f64]| blur(values, width, height, &kernel);
        let (mean_x, mean_y) = (blurred(&x), blurred(&y));
        let (xx, yy, xy) = (
            blurred(&product(&x, &x)),
            blurred(&product(&y, &y)),
            blurred(&product(&x, &y)),
        );
        let mut sum = 0.0;
        for i in 0..mean_x.len() {
            let (mx, my) = (mean_x[i], mean_y[i]);
            let (variance_x, variance_y, covariance) =
                (xx[i] - mx * mx, yy[i] - my * my, xy[i] - mx * my);
            let above = (2.0 * mx * my + C1) * (2.0 * covariance + C2);
            sum += above / ((mx * mx + my * my + C1) * (variance_x + variance_y + C2));
        }
        total += sum / mean_x.len() as f64;
    }
    Ok(total / 3.0)
}

fn gaussian() -> [f64; WINDOW] {
    let mut kernel: [f64; WINDOW] = std::array::from_fn(|i| {
        let distance = i as f64 - RADIUS as f64;
        (-0.5 * distance * distance / (1.5 * 1.5)).exp()
    });
    let sum: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|weight| *weight /= sum);
    kernel
}

/// Weighted means where the window fits: `[height - 10, width - 10]`.
fn blur(values: &[f64], width: usize, height: usize, kernel: &[f64; WINDOW]) -> Vec<f64> {
    let inner = width - 2 * RADIUS;
    let dot = |window: &[f64]| -> f64 { window.iter().zip(kernel).map(|(v, k)| v * k).sum() };
    let rows: Vec<f64> = values
        .chunks_exact(width)
        .flat_map(|row| row.windows(WINDOW).map(dot))
        .collect();
    (0..height - 2 * RADIUS)
        .flat_map(|y| {
            let rows = &rows;
            (0..inner).map(move |x| {
                (0..WINDOW)
                    .map(|k| rows[(y + k) * inner + x] * kernel[k])
                    .sum()
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes() {
        let black = Picture::filled(16, 12, [0; 3]);
        let white = Picture::filled(16, 12, [255; 3]);
        assert_eq!(psnr(&black, &white).unwrap(), 0.0);
        assert_eq!(psnr(&black, &black).unwrap(), f64::INFINITY);
        assert!((ssim(&white, &white).unwrap() - 1.0).abs() < 1e-12);
        assert!(ssim(&black, &white).unwrap() < 0.001);
        let near = Picture::filled(16, 12, [1; 3]);
        assert!((psnr(&black, &near).unwrap() - 48.1308).abs() < 1e-3);
    }

    #[test]
    fn sizes_are_checked() {
        let (a, b) = (
            Picture::filled(16, 12, [0; 3]),
            Picture::filled(12, 16, [0; 3]),
        );
        assert!(matches!(psnr(&a, &b), Err(Error::Mismatch(16, 12, 12, 16))));
        assert!(matches!(ssim(&a, &b), Err(Error::Mismatch(..))));
        let small = Picture::filled(10, 12, [0; 3]);
        assert!(ssim(&small, &small).is_err());
    }
}
