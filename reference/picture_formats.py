"""Small picture files of many kinds, and what Pillow reads from them.

Writes fixtures/media/formats/: the files, and expected.safetensors with the pixels of each, u8 [height, width, 3].
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

from common import case_folder

WIDTH, HEIGHT = 40, 24


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(values):
    """A PNG of 16 bits a channel, which Pillow writes for grey only."""
    height, width, channels = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main():
    folder = case_folder("media", "formats")
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    rgb = np.stack([x * 6, y * 10, 255 - x * 3 - y * 4], -1).clip(0, 255).astype(np.uint8)
    alpha = (x * 6 % 256).astype(np.uint8)
    picture = Image.fromarray(rgb)
    with_alpha = Image.fromarray(np.dstack([rgb, alpha]))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = picture.quantize(32)
    ink = Image.fromarray(np.dstack([rgb, (y * 5).astype(np.uint8)]), "CMYK")
    files = {
        "baseline.jpg": (picture, dict(quality=92, subsampling=0)),
        "progressive.jpg": (picture, dict(quality=92, subsampling=0, progressive=True)),
        "restart.jpg": (picture, dict(quality=92, subsampling=0, restart_marker_rows=1)),
        "grey.jpg": (picture.convert("L"), dict(quality=92)),
        "turned.jpg": (picture, dict(quality=92, subsampling=0, exif=exif)),
        "cmyk.jpg": (ink, dict(quality=95)),
        "plain.png": (picture, {}),
        "alpha.png": (with_alpha, {}),
        "grey.png": (picture.convert("L"), {}),
        "grey_alpha.png": (with_alpha.convert("LA"), {}),
        "palette.png": (palette, {}),
        "palette_transparent.png": (palette, dict(transparency=3)),
        "bits.png": (picture.convert("1"), {}),
        "turned.png": (picture, dict(exif=exif)),
        "lossy.webp": (picture, dict(quality=95)),
        "lossless.webp": (picture, dict(lossless=True)),
        "alpha.webp": (with_alpha, dict(lossless=True, exact=True)),
        "turned.webp": (picture, dict(lossless=True, exif=exif)),
        "animated.webp": (picture, dict(lossless=True, save_all=True, append_images=[ImageOps.invert(picture)])),
    }
    expected = {}
    for name, (image, options) in files.items():
        image.save(folder / name, **options)
        with Image.open(folder / name) as opened:
            expected[name] = np.asarray(ImageOps.exif_transpose(opened).convert("RGB")).copy()
    wide = rgb.astype(np.uint16) * 257
    wide[0, :, 0] += np.arange(WIDTH, dtype=np.uint16) * 6  # values between two bytes, rounded to the nearest
    for name, values in {"rgb16.png": wide, "grey16.png": wide[:, :, 1:2]}.items():
        (folder / name).write_bytes(png16(values))
        nearest = (values.astype(np.float64) / 257 + 0.5).astype(np.uint8)
        expected[name] = np.broadcast_to(nearest, rgb.shape).copy()
    # Without Adobe's segment nothing says whether inks are inverted.
    data = (folder / "cmyk.jpg").read_bytes()
    at = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[at + 2 : at + 4])[0]
    (folder / "refused_cmyk.jpg").write_bytes(data[:at] + data[at + 2 + length :])
    buffer = io.BytesIO()
    picture.save(buffer, "GIF")
    (folder / "refused.gif").write_bytes(buffer.getvalue())
    save_file(expected, folder / "expected.safetensors")


if __name__ == "__main__":
    main()
