"""Which images are for training, validation and test: by content, so the same images are divided alike wherever they lie."""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.data.source import TEST, TRAIN, VALIDATION, Rows, Source
from nas.errors import DataError


class Rows3(NamedTuple):
    """Rows of the three splits, each ascending; no row is in two."""

    train: Rows
    validation: Rows
    test: Rows


def sample_rows(source: Source, limit: int | None) -> Rows:
    """Rows in an order that only their content decides; with a limit, that many, with every class and split in its share."""
    order = np.lexsort((source.labels, source.given, source.digests))
    if limit is None or limit >= len(order):
        return order
    groups = source.given[order].astype(np.int64) * len(source.classes) + source.labels[order]
    share = np.zeros(
        len(order)
    )  # how far into its group a row is, from 0 to 1: cutting by it keeps the groups' proportions
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        share[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.sort(np.argsort(share, kind="stable")[:limit])]


def split_rows(
    labels: Rows,
    digests: NDArray[np.bytes_],
    given: NDArray[np.int8],
    *,
    classes: tuple[str, ...],
    seed: int,
    validation: float,
    test: float,
) -> Rows3:
    """Divide rows into training, validation and test.

    Splits that the source gives are kept; those it lacks are taken out of its training split, the given fraction of every
    class (rounded, at least one image). Images with the same bytes go to the same side, as copies in both would flatter.

    Raises:
        DataError: fewer than two classes, a class that only validation or test has, or one too small to be divided.
    """
    trained = np.unique(labels[given == TRAIN])
    for code, split in ((VALIDATION, "validation"), (TEST, "test")):
        for label in np.setdiff1d(labels[given == code], trained):
            raise DataError(
                f"class {classes[label]!r} is in the {split} split but not in the training split; add it there, or remove it"
            )
    if len(trained) < 2:
        got = f"only {classes[trained[0]]!r}" if len(trained) else "none"
        raise DataError(
            f"at least two classes with images are needed to learn to tell them apart, got {got}; add another class"
        )
    fractions = [
        0.0 if (given == VALIDATION).any() else validation,
        0.0 if (given == TEST).any() else test,
    ]
    taken: list[list[Rows]] = [[], [], []]
    for label in trained:
        rows = np.flatnonzero((labels == label) & (given == TRAIN))
        for part, piece in zip(
            taken, _divide(rows[_draw(digests[rows], seed)], digests, fractions, classes[label]), strict=True
        ):
            part.append(piece)
    train, validation_rows, test_rows = (np.sort(np.concatenate(part)) for part in taken)
    return Rows3(
        train,
        np.flatnonzero(given == VALIDATION) if (given == VALIDATION).any() else validation_rows,
        np.flatnonzero(given == TEST) if (given == TEST).any() else test_rows,
    )


def _draw(digests: NDArray[np.bytes_], seed: int) -> Rows:
    """A random order that depends on the seed and on each image's own content alone."""
    key = str(seed).encode()
    drawn = [hashlib.blake2b(digest, key=key, digest_size=16).hexdigest() for digest in digests.tolist()]
    return np.argsort(np.array(drawn), kind="stable")


def _divide(rows: Rows, digests: NDArray[np.bytes_], fractions: list[float], name: str) -> tuple[Rows, Rows, Rows]:
    """The rows of one class, in drawn order, as (training, validation, test)."""
    ends = np.flatnonzero(np.append(digests[rows][1:] != digests[rows][:-1], True)) + 1  # where a run of copies ends
    cuts = [0]
    for fraction in fractions:
        goal = cuts[-1] + (max(1, round(fraction * len(rows))) if fraction else 0)
        cuts.append(int(ends[np.searchsorted(ends, goal)]) if goal > cuts[-1] and goal <= len(rows) else goal)
    if cuts[-1] >= len(rows):
        needed = 1 + sum(fraction > 0 for fraction in fractions)
        raise DataError(
            f"class {name!r} needs at least {needed} different images to be divided into training and held-out splits, "
            f"got {len(ends)}; add images, or remove the class"
        )
    return rows[cuts[-1] :], rows[: cuts[1]], rows[cuts[1] : cuts[2]]
