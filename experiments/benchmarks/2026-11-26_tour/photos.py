"""Makes the tour's folder of images: the first 600 of each class of CIFAR-10's training split, as PNG files.

python experiments/benchmarks/2026-11-26_tour/photos.py CIFAR10_PARQUET photos/
"""

import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EACH = 600


def main(source: str, target: str) -> None:
    table = pyarrow.parquet.read_table(source)
    written: Counter[int] = Counter()
    for image, label in zip(table.column("img").to_pylist(), table.column("label").to_pylist(), strict=True):
        if written[label] < EACH:
            folder = Path(target) / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{written[label]:04d}.png").write_bytes(image["bytes"])
            written[label] += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
