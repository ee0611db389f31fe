"""Division into training, validation and test: disjoint, by class, and by content."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nas.data import load_data
from nas.data.loading import whole_test_images
from nas.data.pixels import decode
from nas.data.source import TRAIN, Source, content_digest, digest_array
from nas.data.splitting import Division, divide
from nas.errors import DataError
from tests.nas.data.making import alternating_labels, make_folder, make_npz, random_images

LABELS = st.lists(st.integers(0, 3), max_size=150).map(
    lambda labels: np.array([*labels, *(list(range(4)) * 6)], dtype=np.int64)
)


def split(labels: NDArray[np.int64], digests: NDArray[np.bytes_], *, seed: int = 0) -> Division:
    source = Source(
        name="made",
        kind="npz",
        classes=("a", "b", "c", "d"),
        labels=labels,
        digests=digests,
        given=np.full(len(labels), TRAIN, dtype=np.int8),
        read=lambda rows: iter(()),
        where=str,
    )
    return divide(source, np.arange(len(labels)), seed=seed, validation=0.1, test=0.15)


def distinct(count: int) -> NDArray[np.bytes_]:
    return digest_array(content_digest(str(index).encode()) for index in range(count))


@settings(deadline=None)
@given(labels=LABELS, seed=st.integers(0, 2**40))
def test_disjoint_complete_and_stratified(labels: NDArray[np.int64], seed: int) -> None:
    parts = split(labels, distinct(len(labels)), seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for label, count in enumerate(np.bincount(labels)):
        for rows, fraction in ((parts.validation, 0.1), (parts.test, 0.15)):
            assert (labels[rows] == label).sum() == max(1, round(fraction * count))


@settings(deadline=None)
@given(labels=LABELS, seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(labels: NDArray[np.int64], seed: int, order: object) -> None:
    digests = distinct(len(labels))
    shuffled = np.arange(len(labels))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    before, after = split(labels, digests, seed=seed), split(labels[shuffled], digests[shuffled], seed=seed)
    for first, second in zip(before, after, strict=True):
        assert set(digests[first].tolist()) == set(digests[shuffled][second].tolist())


@settings(deadline=None)
@given(copies=st.lists(st.integers(0, 30), min_size=40, max_size=150), seed=st.integers(0, 5))
def test_copies_of_an_image_stay_together(copies: list[int], seed: int) -> None:
    digests = np.concatenate([distinct(40), distinct(40)[copies], distinct(40)])
    labels = np.concatenate([np.zeros(40 + len(copies), dtype=np.int64), np.ones(40, dtype=np.int64)])
    first = np.arange(len(digests)) < 40 + len(copies)
    parts = split(labels, digests, seed=seed)
    held = [set(digests[rows[first[rows]]].tolist()) for rows in parts]
    assert not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    assert all(held)


@settings(deadline=None)
@given(copies=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 3)), max_size=60), seed=st.integers(0, 5))
def test_copies_under_several_labels_stay_together_too(copies: list[tuple[int, int]], seed: int) -> None:
    """Each class has ten images of its own, of whom no other class has a copy."""
    own = np.arange(80)
    digests = distinct(80)[np.concatenate([own, np.array([index for index, _ in copies], dtype=np.int64)])]
    labels = np.concatenate([own % 4, np.array([label for _, label in copies], dtype=np.int64)])
    parts = split(labels, digests, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    held = [set(digests[rows].tolist()) for rows in parts]
    assert not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    assert set(labels[parts.train].tolist()) == {0, 1, 2, 3}


def test_contradictory_labels_are_told_and_a_class_of_copies_only_is_refused(tmp_path: Path) -> None:
    images = random_images(40)
    twice = np.concatenate([images, images[:3]])
    labels = np.concatenate([alternating_labels(40), 1 - alternating_labels(3)])
    notes = load_data(str(make_npz(tmp_path / "a.npz", {"x": twice, "y": labels}))).notes
    assert "3 images are in several classes, byte for byte: labels contradict each other" in notes
    only = {"x": np.concatenate([images, images[:1]]), "y": np.append(alternating_labels(40), 2)}
    copied = str(make_npz(tmp_path / "b.npz", only))
    said = [_said(copied, seed) for seed in range(12)]
    assert "" in said, "its image was not to train on with any seed"
    (refusal,) = set(said) - {""}
    assert "class '2' needs images of its own to learn from" in refusal


def _said(path: str, seed: int) -> str:
    try:
        load_data(path, seed=seed)
    except DataError as error:
        return str(error)
    return ""


def test_seeds_divide_differently_and_repeatably() -> None:
    labels, digests = alternating_labels(200, 4), distinct(200)
    once, again, other = (split(labels, digests, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(first, second) for first, second in zip(once, again, strict=True))
    assert not np.array_equal(once.test, other.test)


def test_an_image_that_comes_later_moves_few_others() -> None:
    digests = distinct(1000)
    labels = alternating_labels(1000, 4)
    before, after = split(labels[:996], digests[:996]), split(labels, digests)
    assert len(set(before.test.tolist()) - set(after.test.tolist())) == 0


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(24)))
def test_renamed_and_reordered_files_are_the_same_data(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    images, labels = random_images(24), alternating_labels(24)
    root = tmp_path_factory.mktemp("folders")
    plain = load_data(str(make_folder(root / "plain", images, labels)))
    renamed = load_data(str(make_folder(root / "renamed", images[order], labels[order], prefix="x")))
    assert plain.fingerprint == renamed.fingerprint
    for first, second in (
        (plain.train, renamed.train),
        (plain.validation, renamed.validation),
        (plain.test, renamed.test),
    ):
        assert first.images.equal(second.images)
        assert first.labels.equal(second.labels)


def test_the_resolution_does_not_change_the_division(tmp_path: Path) -> None:
    images = np.zeros((40, 8, 8), dtype=np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None] * 5
    path = str(make_npz(tmp_path / "flat.npz", {"x": images, "y": alternating_labels(40)}))
    small, large = load_data(path, resolution=4), load_data(path, resolution=16)
    for first, second in ((small.train, large.train), (small.validation, large.validation), (small.test, large.test)):
        assert first.images[:, 0, 0, 0].equal(second.images[:, 0, 0, 0])


def test_fingerprint_tells_seeds_labels_and_resolutions_apart(tmp_path: Path) -> None:
    images, labels = random_images(40), alternating_labels(40)
    path = str(make_npz(tmp_path / "a.npz", {"x": images, "y": labels}))
    swapped = str(make_npz(tmp_path / "b.npz", {"x": images, "y": 1 - labels}))
    loaded = [
        load_data(path),
        load_data(path, seed=1),
        load_data(path, resolution=4),
        load_data(path, channels=1),
        load_data(swapped),
    ]
    assert len({data.fingerprint for data in loaded}) == len(loaded)


def test_test_images_at_their_own_size_are_those_of_the_test_split(tmp_path: Path) -> None:
    tall = np.random.default_rng(0).integers(0, 256, (60, 20, 12, 3), dtype=np.uint8)
    root = make_folder(tmp_path / "tall", tall, alternating_labels(60))
    data = load_data(str(root), resolution=8, seed=3)
    found = whole_test_images(str(root), channels=3, seed=3, images=100)
    assert {pixels.shape for pixels in found} == {(20, 12, 3)}
    resized = {decode(pixels, resolution=8, channels=3).tobytes() for pixels in found}
    assert resized == {image.permute(1, 2, 0).numpy().tobytes() for image in data.test.images}
    assert len(whole_test_images(str(root), channels=1, seed=3, images=4)) == 4
