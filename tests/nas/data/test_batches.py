"""Batches: every image once an epoch, a pure function of seed and position, changed only as allowed."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas.data import Augmentation, Batches, Data, Split, default_augmentation
from nas.data.augmentation import source_pixels
from nas.errors import DataError

NO_DEADLINE = settings(deadline=None)  # the first call of an operation in a process may take long


def numbered(count: int, *, resolution: int = 8, channels: int = 3, name: str = "made", kind: str = "npz") -> Data:
    """Random images whose labels are their numbers."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, resolution, resolution), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(count))
    return Data(
        name=name,
        kind=kind,
        fingerprint="",
        classes=tuple(map(str, range(count))),
        resolution=resolution,
        channels=channels,
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.25, 0.3)[:channels],
        train=split,
        validation=split,
        test=split,
        class_counts=(1,) * count,
    )


def joined(batches: "itertools.chain[tuple[Tensor, Tensor]] | list[tuple[Tensor, Tensor]]") -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def normalised(data: Data, images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    return (images / 255 - mean) / std


@NO_DEADLINE
@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), epoch=st.integers(0, 9), shuffle=st.booleans())
def test_an_epoch_has_every_image_once(count: int, batch_size: int, epoch: int, shuffle: bool) -> None:
    data = numbered(count)
    batches = Batches(split=data.train, data=data, batch_size=batch_size, shuffle=shuffle)
    served = list(batches.epoch(epoch))
    images, labels = joined(served)
    assert len(served) == len(batches)
    assert sorted(labels.tolist()) == list(range(count))
    assert shuffle or labels.tolist() == list(range(count))
    torch.testing.assert_close(images, normalised(data, data.train.images[labels]), atol=1e-5, rtol=0)


@NO_DEADLINE
@given(count=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_drop_last_serves_full_batches_only(count: int, batch_size: int) -> None:
    data = numbered(count)
    batches = Batches(split=data.train, data=data, batch_size=batch_size, drop_last=True)
    served = [len(labels) for _, labels in batches.epoch()]
    assert served == [batch_size] * (count // batch_size)
    assert len(served) == len(batches)


@NO_DEADLINE
@given(
    start=st.integers(0, 60),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    batch_sizes=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_a_resumed_stream_goes_on_as_if_nothing_happened(
    start: int, sizes: list[int], batch_sizes: tuple[int, int]
) -> None:
    """Whatever pieces and batch sizes images are asked for in, image number p is the same, bit for bit."""
    data = numbered(13)
    one, other = (
        Batches(split=data.train, data=data, batch_size=size, augment=Augmentation(), seed=3) for size in batch_sizes
    )
    whole = joined(list(one.stream(start=start, images=sum(sizes))))
    starts = itertools.accumulate([start, *sizes[:-1]])
    pieces = joined(
        [batch for first, size in zip(starts, sizes, strict=True) for batch in other.stream(start=first, images=size)]
    )
    assert whole[0].equal(pieces[0])
    assert whole[1].equal(pieces[1])
    assert len(whole[1]) == sum(sizes)


def test_a_stream_is_its_epochs_one_after_another() -> None:
    data = numbered(10)
    batches = Batches(split=data.train, data=data, batch_size=4, augment=Augmentation())
    stream = joined(list(batches.stream(start=0, images=30)))
    epochs = joined([batch for epoch in range(3) for batch in batches.epoch(epoch)])
    assert stream[0].equal(epochs[0])
    assert stream[1].equal(epochs[1])


def test_epochs_and_seeds_differ() -> None:
    data = numbered(50)
    orders = [
        tuple(joined(list(Batches(split=data.train, data=data, batch_size=50, seed=seed).epoch(epoch)))[1].tolist())
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 9


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_an_augmented_image_is_the_padded_image_cut_and_perhaps_mirrored(channels: int, flip: bool) -> None:
    data = numbered(60, resolution=9, channels=channels)
    batches = Batches(split=data.train, data=data, batch_size=16, augment=Augmentation(crop_px=2, flip=flip))
    padded = torch.nn.functional.pad(normalised(data, data.train.images), (2, 2, 2, 2), mode="reflect")
    seen: set[tuple[int, int, bool]] = set()
    images, labels = joined(list(batches.stream(start=0, images=240)))
    for image, label in zip(images, labels.tolist(), strict=True):
        matches = [
            (top, left, mirrored)
            for top, left, mirrored in itertools.product(range(5), range(5), (False, True))
            if torch.allclose(
                padded[label, :, top : top + 9, left : left + 9].flip(2)
                if mirrored
                else padded[label, :, top : top + 9, left : left + 9],
                image,
                atol=1e-5,
            )
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(5))
    assert {mirrored for _, _, mirrored in seen} == ({False, True} if flip else {False})


@NO_DEADLINE
@given(resolution=st.integers(1, 33), data=st.data())
def test_augmentation_stays_within_the_image(resolution: int, data: st.DataObject) -> None:
    augmentation = Augmentation(crop_px=data.draw(st.integers(0, resolution - 1)), flip=data.draw(st.booleans()))
    drawn = augmentation.draw(50, resolution, torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    pixels = source_pixels(drawn, resolution)
    assert pixels.shape == (50, resolution, resolution)
    assert int(pixels.min()) >= 0
    assert int(pixels.max()) < resolution * resolution


def test_a_flip_alone_mirrors_left_to_right() -> None:
    image = torch.arange(6 * 6).view(6, 6)
    assert source_pixels(torch.tensor([[0, 0, 1]]), 6)[0].equal(image.flip(1))
    assert source_pixels(torch.tensor([[0, 0, 0]]), 6)[0].equal(image)


@settings(NO_DEADLINE, max_examples=20)
@given(channels=st.sampled_from([1, 3]), channels_last=st.booleans(), augmented=st.booleans())
def test_memory_format_does_not_change_values(channels: int, channels_last: bool, augmented: bool) -> None:
    data = numbered(6, channels=channels)
    augment = Augmentation() if augmented else None
    kwargs = {"split": data.train, "data": data, "batch_size": 4, "augment": augment}
    images, _ = next(Batches(**kwargs, channels_last=channels_last).epoch())  # type: ignore[arg-type]
    plain, _ = next(Batches(**kwargs).epoch())  # type: ignore[arg-type]
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert images.equal(plain)


def test_serving_leaves_the_images_as_they_were() -> None:
    data = numbered(6)
    before = data.train.images.clone()
    list(Batches(split=data.train, data=data, batch_size=4, augment=Augmentation()).epoch())
    assert data.train.images.equal(before)


@pytest.mark.parametrize(
    ("name", "kind", "flip"),
    [
        ("digits", "digits", False),
        ("fashion", "idx", False),
        ("MNIST", "parquet", False),
        ("svhn", "hub", False),
        ("cifar10", "parquet", True),
        ("pathmnist", "npz", True),
        ("photos", "folder", True),
    ],
)
def test_characters_are_not_mirrored_by_default(name: str, kind: str, flip: bool) -> None:
    data = numbered(2, name=name, kind=kind)
    assert default_augmentation(data) == Augmentation(crop_px=None, flip=flip)
    assert default_augmentation(data).margin_px(32) == 4


def test_bad_settings_are_refused() -> None:
    data = numbered(4)
    with pytest.raises(DataError, match="batch size must be at least 1, got 0"):
        Batches(split=data.train, data=data, batch_size=0)
    with pytest.raises(DataError, match="crop must be from 0 to 7 px at a resolution of 8, got 8"):
        Batches(split=data.train, data=data, batch_size=1, augment=Augmentation(crop_px=8))
    empty = Split(data.train.images[:0], data.train.labels[:0])
    with pytest.raises(DataError, match="without images cannot be served"):
        Batches(split=empty, data=data, batch_size=1)
