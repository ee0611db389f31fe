"""Images in the rows of tables, as Hugging Face lays them out: Parquet files, and data sets from its hub."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.source import (
    SPLIT_NAMES,
    TRAIN,
    Encoded,
    Progress,
    Rows,
    Source,
    content_digest,
    digest_array,
    number_labels,
)
from nas.errors import DataError

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "y")
ROWS_AT_A_TIME = 256

Features = Mapping[str, Mapping[str, Any]]
"""Hugging Face's description of columns: `{"label": {"_type": "ClassLabel", "names": [...]}, ...}`."""


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of one split; they are read a few at a time.

    Attributes:
        given: the split.
        where: where the rows come from, for messages.
        rows: how many there are.
        batches: starts reading some columns; each batch is an Arrow table or record batch.
    """

    given: int
    where: str
    rows: int
    batches: Callable[[list[str]], Iterator[Any]]


def parquet_source(path: Path, *, progress: Progress) -> Source:
    """Index a Parquet file, or all of a folder; the split is in a file's name (`train-00000-of-00001.parquet`) or its folder's.

    Raises:
        DataError: pyarrow is not installed, a file is damaged, or there is no column of images or of labels.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{path}: reading Parquet needs pyarrow, which is not installed; pip install pocketnas[parquet]"
        ) from error

    files = [path] if path.is_file() else parquet_files(path)
    named = {file: _split_of(file) for file in files}
    known = [file for file in files if named[file] in SPLIT_NAMES]
    if not any(SPLIT_NAMES[named[file]] == TRAIN for file in known):
        known = files  # no name tells a training split: one pool, to be divided
        named = dict.fromkeys(files, "train")
    tables: list[Table] = []
    try:
        for file in known:
            rows = parquet.ParquetFile(file).metadata.num_rows
            tables.append(Table(SPLIT_NAMES[named[file]], file.name, rows, _parquet_batches(file)))
        schema = parquet.read_schema(known[0])
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = metadata.get("info", {}).get("features", {})
        notes = [f"{file.name} was left out: its name tells of no known split" for file in files if file not in known]
        return table_source(
            tables, schema, features=features, name=path.resolve().stem, kind="parquet", notes=notes, progress=progress
        )
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read as Parquet ({reason}); it may be damaged or cut short") from error


def parquet_files(folder: Path) -> list[Path]:
    """Parquet files in a folder and below, without hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*.parquet")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def hub_source(name: str, *, progress: Progress) -> Source:
    """Index a data set of the Hugging Face hub, fetched and kept by the `datasets` library.

    Raises:
        DataError: the library is not installed, the data set cannot be fetched, or it has no column of images or of labels.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"hf:{name}: the hub needs the datasets library, which is not installed; pip install pocketnas[hub]"
        ) from error
    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # anything from no network to a name that does not exist; the library has no common base
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"hf:{name}: cannot be fetched ({reason}); check the name and the network") from error
    known = {split: rows for split, rows in splits.items() if split in SPLIT_NAMES}
    if not any(SPLIT_NAMES[split] == TRAIN for split in known):
        raise DataError(f"hf:{name}: a split named train is needed, got {', '.join(splits)}")
    first = next(iter(known.values()))
    return table_source(
        [Table(SPLIT_NAMES[split], f"{name} {split}", len(rows), _hub_batches(rows)) for split, rows in known.items()],
        first.features.arrow_schema,
        features=first.features.to_dict(),
        name=name.rstrip("/").split("/")[-1],
        kind="hub",
        notes=[f"split {split} was left out" for split in splits if split not in known],
        progress=progress,
    )


def table_source(
    tables: Sequence[Table],
    schema: Any,
    *,
    features: Features,
    name: str,
    kind: str,
    notes: Sequence[str],
    progress: Progress,
) -> Source:
    """Index the rows of tables that share an Arrow schema."""
    columns = [_image_column(schema, features, name), _label_column(schema, features, name)]
    names = features.get(columns[1], {}).get("names")
    starts = np.cumsum([0] + [table.rows for table in tables])

    def where(row: int) -> str:
        table = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{tables[table].where} row {row - starts[table]}"

    def read(rows: Rows) -> Iterator[tuple[int, Encoded]]:
        wanted = np.zeros(starts[-1], dtype=bool)
        wanted[rows] = True
        yield from ((row, image) for row, image, _ in _rows(tables, columns) if wanted[row])

    digests: list[bytes] = []
    labels: list[Any] = []
    for row, image, label in _rows(tables, columns):
        if label is None:
            raise DataError(f"{where(row)}: every image needs a label, got none; remove the row")
        digests.append(content_digest(image))
        labels.append(label)
        progress("reading", row + 1, int(starts[-1]))
    values: NDArray[np.generic] = np.array(labels) if labels else np.zeros(0, dtype=np.int64)
    classes, numbers = number_labels(values, names=tuple(names) if names else None, where=name)
    given = np.concatenate([np.full(table.rows, table.given, dtype=np.int8) for table in tables])
    return Source(name, kind, classes, numbers, digest_array(digests), given, read, where, tuple(notes))


def _rows(tables: Sequence[Table], columns: list[str]) -> Iterator[tuple[int, bytes, Any]]:
    """Number, encoded image (empty if there is none) and label of every row."""
    row = 0
    for table in tables:
        for batch in table.batches(columns):
            for image, label in zip(*(batch.column(column).to_pylist() for column in columns), strict=True):
                yield row, (image.get("bytes") if isinstance(image, dict) else image) or b"", label
                row += 1


def _image_column(schema: Any, features: Features, where: str) -> str:
    described = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    binary: list[str] = [field.name for field in schema if _holds_bytes(str(field.type))]
    for name in [*described, *IMAGE_COLUMNS, *binary]:
        if name in binary:
            return name
    raise DataError(f"{where}: a column of encoded images (bytes) is needed, got columns {', '.join(schema.names)}")


def _holds_bytes(arrow_type: str) -> bool:
    return arrow_type in ("binary", "large_binary") or (
        "bytes: binary" in arrow_type and arrow_type.startswith("struct<")
    )


def _label_column(schema: Any, features: Features, where: str) -> str:
    described = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    names: list[str] = schema.names
    for name in [*LABEL_COLUMNS, *described]:
        if name in names:
            return name
    raise DataError(
        f"{where}: a column of labels is needed ({', '.join(LABEL_COLUMNS)}, or one marked as ClassLabel), "
        f"got columns {', '.join(names)}; rename it"
    )


def _split_of(file: Path) -> str:
    name = file.stem.lower().replace(".", "-").split("-")[0]
    return name if name in SPLIT_NAMES else file.parent.name.lower()


def _parquet_batches(file: Path) -> Callable[[list[str]], Iterator[Any]]:
    from pyarrow import parquet

    return lambda columns: parquet.ParquetFile(file).iter_batches(batch_size=ROWS_AT_A_TIME, columns=columns)


def _hub_batches(rows: Any) -> Callable[[list[str]], Iterator[Any]]:
    return lambda columns: rows.select_columns(columns).with_format("arrow").iter(batch_size=ROWS_AT_A_TIME)
