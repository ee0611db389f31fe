"""A data set's three splits as one `.npz`, so that every training of a record, and any other program, uses the same ones."""

from pathlib import Path

import numpy as np

from nas.data import load_data


def write_splits(source: str, path: Path, *, resolution: int = 32) -> None:
    """Divide what `nas --data` takes as seed 0 does, and write it: images (N, H, W, C), uint8, and labels, (N,)."""
    data = load_data(source, resolution=resolution)
    arrays = {}
    for name, split in (("train", data.train), ("val", data.validation), ("test", data.test)):
        images = split.images if split.rows is None else split.images[split.rows]
        arrays[f"x_{name}"] = images.permute(0, 2, 3, 1).contiguous().numpy()
        arrays[f"y_{name}"] = split.labels.numpy()
    part = path.with_suffix(".part.npz")
    np.savez(part, **arrays)
    part.replace(path)
