"""Which images are for training, validation and test: by content, so the same images are divided alike wherever they lie."""

import hashlib
from typing import NamedTuple

import numpy as np

from nas.data.source import TEST, TRAIN, VALIDATION, Rows, Source
from nas.errors import DataError


class Division(NamedTuple):
    """Rows of the three splits, each ascending; no row is in two."""

    train: Rows
    validation: Rows
    test: Rows


def sample(source: Source, limit: int | None) -> Source:
    """The images in an order that only their content decides; with a limit, that many, classes and splits in their shares."""
    order = np.lexsort((source.labels, source.given, source.digests))
    if limit is None or limit >= len(order):
        return source.select(order)
    groups = source.given[order].astype(np.int64) * len(source.classes) + source.labels[order]
    share = np.zeros(
        len(order)
    )  # how far into its group a row is, 0 to 1: cutting all groups there keeps their proportions
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        share[members] = (np.arange(len(members)) + 0.5) / len(members)
    return source.select(order[np.sort(np.argsort(share, kind="stable")[:limit])])


def divide(source: Source, rows: Rows, *, seed: int, validation: float, test: float) -> Division:
    """Divide some rows of a source into training, validation and test.

    Splits that the source gives are kept; those it lacks are taken out of its training split, the given fraction of every
    class (rounded, at least one image). Images with the same bytes go to the same side, as copies on both would flatter: where
    some have one label and some another, all go where the first label's go.

    Args:
        source: the images.
        rows: (N,), ascending: those to divide.
        seed: draws which images are taken.
        validation: fraction for validation, above 0.
        test: fraction for test, above 0.

    Raises:
        DataError: fewer than two classes, a class that only validation or test has, or one too small to be divided.
    """
    given = source.given[rows]
    pool, validation_rows, test_rows = (rows[given == split] for split in (TRAIN, VALIDATION, TEST))
    _check_classes(source, pool, validation=validation_rows, test=test_rows)
    fractions = (0.0 if len(validation_rows) else validation, 0.0 if len(test_rows) else test)
    drawn_as = _first_labels(source, pool)
    pieces = [
        _divide_class(pool[drawn_as == label], source, source.classes[label], fractions=fractions, seed=seed)
        for label in np.unique(drawn_as)
    ]
    train, taken_validation, taken_test = (np.sort(np.concatenate(part)) for part in zip(*pieces, strict=True))
    for label in np.setdiff1d(source.labels[pool], source.labels[train]):
        raise DataError(
            f"class {source.classes[label]!r} needs images of its own to learn from, all that it has are in other classes too, "
            "byte for byte; add images, or remove the copies"
        )
    return Division(
        train,
        validation_rows if len(validation_rows) else taken_validation,
        test_rows if len(test_rows) else taken_test,
    )


def _check_classes(source: Source, train: Rows, **held_out: Rows) -> None:
    trained = np.unique(source.labels[train])
    for split, rows in held_out.items():
        for label in np.setdiff1d(source.labels[rows], trained):
            raise DataError(
                f"class {source.classes[label]!r} is in the {split} split but not in the training split; add images there, or "
                "remove the class"
            )
    if len(trained) < 2:
        got = f"only {source.classes[trained[0]]!r}" if len(trained) else "none"
        raise DataError(
            f"at least two classes with images are needed to learn to tell them apart, got {got}; add another class"
        )


def _first_labels(source: Source, rows: Rows) -> Rows:
    """For each row the first of all labels that images with its bytes have among these rows."""
    _, which = np.unique(source.digests[rows], return_inverse=True)
    first = np.full(len(rows), len(source.classes), dtype=np.int64)
    np.minimum.at(first, which, source.labels[rows])
    return first[which]


def _divide_class(
    rows: Rows, source: Source, name: str, *, fractions: tuple[float, float], seed: int
) -> tuple[Rows, Rows, Rows]:
    """The training rows of one class, as (training, validation, test).

    Every image draws a number from the seed and its own content, whatever else is there; the lowest are held out.
    """
    key = str(seed).encode()
    drawn = np.array([hashlib.blake2b(digest, key=key).hexdigest() for digest in source.digests[rows].tolist()])
    order = np.argsort(drawn, kind="stable")
    rows, drawn = rows[order], drawn[order]
    ends = np.flatnonzero(np.append(drawn[1:] != drawn[:-1], True)) + 1  # where a run of copies ends
    cuts = [0]
    for fraction in fractions:
        goal = cuts[-1] + (max(1, round(fraction * len(rows))) if fraction else 0)
        cuts.append(next((end for end in [cuts[-1], *ends.tolist()] if end >= goal), goal))
    if cuts[-1] >= len(rows):
        needed = 1 + sum(fraction > 0 for fraction in fractions)
        raise DataError(
            f"class {name!r} needs at least {needed} different images to be divided into "
            f"training and held-out splits, got {len(ends)}; add images, or remove the class"
        )
    return rows[cuts[2] :], rows[: cuts[1]], rows[cuts[1] : cuts[2]]
