"""Images in Parquet files."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nas.data.source import SPLIT_NAMES, TRAIN, Progress, Source, split_of
from nas.data.tables import ROWS_AT_A_TIME, Features, Table, table_source
from nas.errors import DataError


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
    named = {file: split_of(file) for file in files}
    known = sorted((file for file in files if named[file] in SPLIT_NAMES), key=lambda file: SPLIT_NAMES[named[file]])
    if not known or SPLIT_NAMES[named[known[0]]] != TRAIN:
        known = files  # no name tells a training split: one pool, to be divided
        named = dict.fromkeys(files, "train")
    tables: list[Table] = []
    try:
        for file in known:
            rows = parquet.ParquetFile(file).metadata.num_rows
            tables.append(Table(SPLIT_NAMES[named[file]], file.name, rows, _parquet_batches(file)))
        schema = parquet.read_schema(known[0])
        notes = [f"{file.name} was left out: its name tells of no known split" for file in files if file not in known]
        return table_source(
            tables,
            schema,
            features=_features(schema),
            name=path.resolve().stem if path.is_file() else path.resolve().name,
            kind="parquet",
            notes=notes,
            progress=progress,
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


def _features(schema: Any) -> Features:
    """Hugging Face's description in a file's schema; empty if there is none that can be read."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _parquet_batches(file: Path) -> Callable[[list[str]], Iterator[Any]]:
    from pyarrow import parquet

    return lambda columns: parquet.ParquetFile(file).iter_batches(batch_size=ROWS_AT_A_TIME, columns=columns)
