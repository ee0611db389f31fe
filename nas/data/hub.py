"""Images in data sets of the Hugging Face hub."""

from collections.abc import Callable, Iterator
from typing import Any

from nas.data.source import SPLIT_NAMES, TRAIN, Progress, Source
from nas.data.tables import ROWS_AT_A_TIME, Table, table_source
from nas.errors import DataError


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


def _hub_batches(rows: Any) -> Callable[[list[str]], Iterator[Any]]:
    return lambda columns: rows.select_columns(columns).with_format("arrow").iter(batch_size=ROWS_AT_A_TIME)
