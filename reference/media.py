"""Goldens of picture operations: Pillow's resize, torch's bilinear interpolation, scikit-image's SSIM.

Writes fixtures/media/golden/golden.safetensors. Besides requirements.txt it needs scikit-image 0.26.0.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import save_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from common import case_folder

FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# (width, height): both smaller, both larger, mixed, one side kept, one pixel, very thin.
SIZES = [(20, 13), (61, 47), (17, 90), (53, 20), (24, 37), (1, 1), (53, 1), (3, 74)]


def picture(width, height, seed):
    """Smooth colours with hard edges and noise, so that clipping and rounding both happen."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([128 + 127 * np.sin(x / 5 + c) * np.cos(y / 7 - c) for c in range(3)], -1)
    values = np.where(((x // 6 + y // 9) % 2 == 0)[..., None], smooth, random.integers(0, 256, (height, width, 3)))
    values[:4] = 0
    values[4:8] = 255
    return values.clip(0, 255).astype(np.uint8)


def main():
    tensors = {}
    source = picture(53, 37, 1)
    tensors["resize.input"] = source
    for name, resample in FILTERS.items():
        for width, height in SIZES:
            resized = Image.fromarray(source).resize((width, height), resample)
            tensors[f"resize.{name}.{width}x{height}"] = np.asarray(resized).copy()

    planes = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 9, 14)).astype(np.float32))
    tensors["interpolate.input"] = planes.numpy()
    for width, height in [(28, 18), (7, 4), (23, 5), (14, 9), (1, 1), (5, 31)]:
        scaled = F.interpolate(planes[None], size=(height, width), mode="bilinear", align_corners=False)[0]
        tensors[f"interpolate.{width}x{height}"] = scaled.contiguous().numpy()

    a = picture(40, 31, 3)
    noise = np.random.default_rng(4).normal(scale=20, size=a.shape)
    b = (a + noise).clip(0, 255).astype(np.uint8)
    tensors["metrics.a"], tensors["metrics.b"] = a, b
    ssim = structural_similarity(
        a, b, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    psnr = peak_signal_noise_ratio(a, b, data_range=255)
    tensors["metrics.expected"] = np.array([psnr, ssim], dtype=np.float64)
    folder = case_folder("media", "golden")
    save_file(tensors, folder / "golden.safetensors")


if __name__ == "__main__":
    main()
