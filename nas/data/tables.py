"""Images in the rows of tables, as Hugging Face lays them out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.source import (
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
        if not isinstance(label, (int, str)):
            raise DataError(
                f"{where(row)}: a label must be a whole number or a string, got {type(label).__name__}; convert them"
            )
        digests.append(content_digest(image))
        labels.append(label)
        progress("reading", row + 1, int(starts[-1]))
    values: NDArray[np.generic] = np.array(labels) if labels else np.zeros(0, dtype=np.int64)
    classes, numbers = number_labels(
        values, names=tuple(map(str, names)) if isinstance(names, list) else None, where=name
    )
    given = np.concatenate([np.full(table.rows, table.given, dtype=np.int8) for table in tables])
    return Source(name, kind, classes, numbers, digest_array(digests), given, read, where, tuple(notes))


def _rows(tables: Sequence[Table], columns: list[str]) -> Iterator[tuple[int, bytes, Any]]:
    """Number, encoded image (empty if there is none) and label of every row."""
    row = 0
    for table in tables:
        for batch in table.batches(columns):
            if missing := [column for column in columns if column not in batch.schema.names]:
                raise DataError(
                    f"{table.where}: must have the columns of the other files, {missing[0]!r} is missing; add it"
                )
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
