"""Goldens of operations on masks: what scipy 1.17 and scikit-image 0.26 make of seeded blots. Skeletons are by the rule of
Zhang and Suen (1984) as they published it, stated here once more: scikit-image's table of neighbourhoods differs from it.

    python shapes.py
"""

import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy import ndimage, spatial
from skimage.segmentation import watershed

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / "fixtures" / "media" / "shapes"
SIDES = ndimage.generate_binary_structure(2, 1)
CORNERS = ndimage.generate_binary_structure(2, 2)


def least_area(places):
    """The area of the smallest rectangle around places: a side of it lies on a side of their hull."""
    hull = places[spatial.ConvexHull(places).vertices]
    best = math.inf
    for a, b in zip(hull, np.roll(hull, -1, axis=0)):
        along = (b - a) / np.linalg.norm(b - a)
        across = np.array([-along[1], along[0]])
        best = min(best, np.ptp(hull @ along) * np.ptp(hull @ across))
    return best


def skeleton(mask):
    """Pixels are dropped from two sides in turn, all of a side at once."""
    inside = np.pad(mask, 1)
    while True:
        before = inside.copy()
        for second in (False, True):
            dropped = []
            for y, x in np.argwhere(inside):
                p2, p3, p4, p5, p6, p7, p8, p9 = near = [
                    bool(inside[y + dy, x + dx])
                    for dy, dx in [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
                ]
                rises = sum(not a and b for a, b in zip(near, near[1:] + near[:1]))
                if second:
                    free = not (p2 and p4 and p8) and not (p2 and p6 and p8)
                else:
                    free = not (p2 and p4 and p6) and not (p4 and p6 and p8)
                if 2 <= sum(near) <= 6 and rises == 1 and free:
                    dropped.append((y, x))
            for place in dropped:
                inside[place] = False
        if (before == inside).all():
            return inside[1:-1, 1:-1]


def case(rng, width, height, smooth, level):
    relief = ndimage.gaussian_filter(rng.normal(size=(height, width)), smooth, mode="wrap").astype(np.float32)
    # Multiples of 1/64, exact in every float and often equal: equals must be flooded in their order.
    relief = np.round(relief / np.abs(relief).max() * 64) / 64
    mask = relief > level
    labels, count = ndimage.label(mask, SIDES)
    joined, joined_count = ndimage.label(mask, CORNERS)
    markers, _ = ndimage.label(relief > level + 0.35, SIDES)
    basins = watershed(-relief, markers, mask=mask, connectivity=1)
    places = np.argwhere(joined == 1)[:, ::-1].astype(float)
    area = least_area(places) if len(places) > 3 and np.ptp(places, axis=0).min() > 0 else 0.0
    return {
        "relief": relief.astype(np.float32), "mask": mask.astype(np.uint8), "labels": labels.astype(np.int64),
        "joined": joined.astype(np.int64), "counts": np.array([count, joined_count]),
        "holes": (ndimage.binary_fill_holes(mask, SIDES) & ~mask).astype(np.uint8),
        "distances": ndimage.distance_transform_edt(mask).astype(np.float32),
        "skeleton": skeleton(mask).astype(np.uint8), "markers": markers.astype(np.int64),
        "basins": basins.astype(np.int64), "least_area": np.array([area], dtype=np.float64),
    }


def main():
    rng = np.random.default_rng(19)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, sizes in {"small": (23, 17, 1.2, 0.1), "wide": (61, 20, 2.0, 0.0), "large": (48, 64, 2.5, -0.2)}.items():
        save_file(case(rng, *sizes), FOLDER / f"{name}.safetensors")


main()
