"""Small data sets of every kind for the tests."""

import gzip
import io
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]


def random_images(count: int, *, size: int = 8, channels: int = 3, seed: int = 0) -> Images:
    """Random pixels: (count, size, size) for one channel, (count, size, size, 3) for three."""
    shape = (count, size, size) if channels == 1 else (count, size, size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def alternating_labels(count: int, classes: int = 2) -> NDArray[np.int64]:
    return np.arange(count, dtype=np.int64) % classes


def encoded(image: Images, format_: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format_)
    return file.getvalue()


def make_folder(root: Path, images: Images, labels: Sequence[int] | NDArray[np.int64], *, prefix: str = "") -> Path:
    """One sub-folder a class, named `0`, `1`, …"""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / str(label) / f"{prefix}{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image))
    return root


def make_parquet(
    path: Path,
    images: Sequence[bytes] | Images,
    labels: Sequence[object] | NDArray[np.int64],
    *,
    names: Sequence[str] | None = None,
    struct_column: bool = True,
    columns: tuple[str, str] = ("image", "label"),
) -> Path:
    """A Parquet file in Hugging Face's layout."""
    import pyarrow
    from pyarrow import parquet

    contents = [image if isinstance(image, bytes) else encoded(image) for image in images]
    column = pyarrow.array(contents, type=pyarrow.binary())
    if struct_column:
        column = pyarrow.StructArray.from_arrays(
            [column, pyarrow.nulls(len(contents), pyarrow.string())], names=["bytes", "path"]
        )
    table = pyarrow.table({columns[0]: column, columns[1]: pyarrow.array(list(labels))})
    if names is not None:
        features = {columns[0]: {"_type": "Image"}, columns[1]: {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def make_npz(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def make_idx(folder: Path, split: str, images: Images, labels: NDArray[np.int64], *, compressed: bool = False) -> Path:
    """`split` is `train` or `t10k`."""
    folder.mkdir(parents=True, exist_ok=True)
    for what, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
        content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        name = f"{split}-{what}-ubyte" + (".gz" if compressed else "")
        (folder / name).write_bytes(gzip.compress(content) if compressed else content)
    return folder
