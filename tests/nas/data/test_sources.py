"""The same images are the same data, however they are stored."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from nas.data import Data, load_data
from nas.errors import DataError
from tests.nas.data.making import (
    alternating_labels,
    encoded,
    make_folder,
    make_idx,
    make_npz,
    make_parquet,
    random_images,
)

IMAGES, LABELS = random_images(40), alternating_labels(40)
GREY = random_images(40, channels=1)
TEST_IMAGES, TEST_LABELS = random_images(10, seed=1), alternating_labels(10)


def pixels(data: Data) -> list[set[bytes]]:
    """Each split as a set of images with their labels."""
    return [
        {
            image.numpy().tobytes() + bytes([label])
            for image, label in zip(split.images, split.labels.tolist(), strict=True)
        }
        for split in (data.train, data.validation, data.test)
    ]


def test_digits_are_the_default_images() -> None:
    data = load_data("digits")
    assert (data.name, data.resolution, data.channels, len(data.classes)) == ("digits", 8, 1, 10)
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    assert data.train.images.dtype == torch.uint8
    assert data.train.images.shape == (len(data.train), 1, 8, 8)
    assert data.train.labels.dtype == torch.int64
    assert int(data.train.images.max()) == 255


def test_statistics_and_counts_are_those_of_the_training_split(tmp_path: Path) -> None:
    data = load_data(str(make_folder(tmp_path / "set", IMAGES, [0] * 10 + [1] * 30)))
    values = data.train.images.double() / 255
    assert data.mean == pytest.approx(values.mean(dim=(0, 2, 3)).tolist(), abs=1e-12)
    assert data.std == pytest.approx(values.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-12)
    assert data.class_counts == tuple(torch.bincount(data.train.labels).tolist())
    assert data.imbalance == pytest.approx(max(data.class_counts) / min(data.class_counts))


def test_every_kind_of_storage_holds_the_same_images(tmp_path: Path) -> None:
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": TEST_IMAGES, "y_test": TEST_LABELS}
    folder = tmp_path / "folder"
    make_folder(folder / "train", IMAGES, LABELS)
    make_folder(folder / "test", TEST_IMAGES, TEST_LABELS)
    make_parquet(tmp_path / "parquet" / "train-00000-of-00002.parquet", IMAGES[:15], LABELS[:15])
    make_parquet(tmp_path / "parquet" / "train-00001-of-00002.parquet", IMAGES[15:], LABELS[15:])
    make_parquet(tmp_path / "parquet" / "test-00000-of-00001.parquet", TEST_IMAGES, TEST_LABELS)
    npz = make_npz(tmp_path / "set.npz", arrays)
    loaded = [load_data(str(source)) for source in (folder, tmp_path / "parquet", npz)]
    assert [data.kind for data in loaded] == ["folder", "parquet", "npz"]
    for data in loaded:
        assert data.classes == ("0", "1")
        train, validation, test = pixels(data)
        expected = [
            {np.moveaxis(image, -1, 0).tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True)}
            for images, labels in ((IMAGES, LABELS), (TEST_IMAGES, TEST_LABELS))
        ]
        assert [train | validation, test] == expected
    # encoded alike (PNG), so divided alike; an archive holds pixels, which are other bytes
    assert loaded[0].fingerprint == loaded[1].fingerprint


def test_a_given_validation_split_is_kept(tmp_path: Path) -> None:
    for name in ("val", "valid", "validation"):
        root = tmp_path / name
        make_folder(root / "train", IMAGES, LABELS)
        make_folder(root / name, TEST_IMAGES, TEST_LABELS)
        data = load_data(str(root))
        assert len(data.validation) == len(TEST_LABELS)
        assert len(data.train) + len(data.test) == len(LABELS)


def test_hidden_and_foreign_files_are_ignored(tmp_path: Path) -> None:
    plain = load_data(str(make_folder(tmp_path / "plain", IMAGES, LABELS)))
    root = make_folder(tmp_path / "littered", IMAGES, LABELS)
    (root / "0" / ".hidden.png").write_bytes(encoded(TEST_IMAGES[0]))
    (root / "0" / "notes.txt").write_text("not an image")
    (root / ".thumbnails").mkdir()
    (root / ".thumbnails" / "a.png").write_bytes(encoded(TEST_IMAGES[1]))
    (root / "README.md").write_text("about")
    (root / "empty").mkdir()
    littered = load_data(str(root))
    assert littered.fingerprint == plain.fingerprint
    assert any("empty holds no image" in note for note in littered.notes)


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    for name, images in (("bus", IMAGES[:20]), ("train", IMAGES[20:])):
        for index, image in enumerate(images):
            path = tmp_path / name / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encoded(image))
    data = load_data(str(tmp_path))
    assert data.classes == ("bus", "train")
    assert data.notes == ("train is taken as a class, not as a split: its images do not lie in class folders",)
    assert len(data.train) + len(data.validation) + len(data.test) == 40


def test_images_outside_of_a_class_folder_are_named_and_left_out(tmp_path: Path) -> None:
    plain = load_data(str(make_folder(tmp_path / "plain" / "train", IMAGES, LABELS).parent))
    assert plain.notes == ()
    root = make_folder(tmp_path / "strayed" / "train", IMAGES, LABELS).parent
    (root / "test").mkdir()
    (root / "test" / "unlabelled.png").write_bytes(encoded(TEST_IMAGES[0]))
    strayed = load_data(str(root))
    assert strayed.fingerprint == plain.fingerprint
    assert strayed.notes == ("1 image lies outside of a class folder, left out: test/unlabelled.png",)
    (root / "train" / "b.png").write_bytes(encoded(TEST_IMAGES[1]))
    (root / "a.png").write_bytes(encoded(TEST_IMAGES[2]))
    told = load_data(str(root)).notes
    assert told == ("3 images lie outside of a class folder, left out: a.png",)
    classes = make_folder(tmp_path / "classes", IMAGES, LABELS)
    (classes / "c.png").write_bytes(encoded(TEST_IMAGES[0]))
    assert load_data(str(classes)).notes == ("1 image lies outside of a class folder, left out: c.png",)


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files(tmp_path: Path, compressed: bool) -> None:
    folder = make_idx(tmp_path / "mnist", "train", GREY, LABELS, compressed=compressed)
    make_idx(folder, "t10k", GREY[:10, ::-1], LABELS[:10], compressed=compressed)
    data = load_data(str(folder))
    assert (data.kind, data.channels, len(data.test), len(data.train) + len(data.validation)) == ("idx", 1, 10, 40)


def test_idx_files_without_test_split_are_divided(tmp_path: Path) -> None:
    data = load_data(str(make_idx(tmp_path / "mnist", "train", GREY, LABELS)))
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 4, 6)


@pytest.mark.parametrize(
    ("images", "labels"),
    [("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels"), ("x", "y")],
)
def test_npz_names(tmp_path: Path, images: str, labels: str) -> None:
    data = load_data(str(make_npz(tmp_path / "a.npz", {images: GREY, labels: LABELS[:, None]})))
    assert (len(data.train), data.channels) == (30, 1)


def test_npz_layouts_and_types_are_the_same_pixels(tmp_path: Path) -> None:
    last = IMAGES
    variants = {
        "nchw": np.moveaxis(last, -1, 1),
        "float32": last.astype(np.float32) / 255,
        "uint16": last.astype(np.uint16) * 257,
    }
    reference = load_data(str(make_npz(tmp_path / "last.npz", {"x": last, "y": LABELS})))
    for name, images in variants.items():
        data = load_data(str(make_npz(tmp_path / f"{name}.npz", {"x": images, "y": LABELS})))
        assert data.fingerprint == reference.fingerprint, name


def test_class_names_come_from_the_labels_or_the_schema(tmp_path: Path) -> None:
    words = [("cat", "dog")[label] for label in LABELS]
    named = make_parquet(tmp_path / "named.parquet", IMAGES, LABELS, names=["cat", "dog"], columns=("img", "label"))
    strings = make_parquet(tmp_path / "strings.parquet", IMAGES, words, struct_column=False)
    letters = make_npz(tmp_path / "letters.npz", {"x": IMAGES, "y": LABELS * 5 + 3})
    assert load_data(str(named)).classes == ("cat", "dog")
    assert load_data(str(strings)).classes == ("cat", "dog")
    assert load_data(str(letters)).classes == ("3", "8")
    assert load_data(str(named)).fingerprint == load_data(str(strings)).fingerprint


@pytest.mark.parametrize(
    "metadata", ["no json", "[]", '{"info": {"features": 3}}', '{"info": {"features": {"label": {"names": 3}}}}']
)
def test_a_schema_description_that_cannot_be_read_says_nothing(tmp_path: Path, metadata: str) -> None:
    from pyarrow import parquet

    plain = make_parquet(tmp_path / "plain.parquet", IMAGES, LABELS)
    parquet.write_table(
        parquet.read_table(plain).replace_schema_metadata({"huggingface": metadata}), tmp_path / "odd.parquet"
    )
    assert load_data(str(tmp_path / "odd.parquet")).fingerprint == load_data(str(plain)).fingerprint


def test_a_single_parquet_file_is_divided_whatever_its_name(tmp_path: Path) -> None:
    data = load_data(str(make_parquet(tmp_path / "test-00000-of-00001.parquet", IMAGES, LABELS)))
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 4, 6)


def test_parquet_of_unknown_splits_is_left_out_and_said(tmp_path: Path) -> None:
    make_parquet(tmp_path / "set" / "train-0.parquet", IMAGES, LABELS)
    make_parquet(tmp_path / "set" / "unsupervised-0.parquet", TEST_IMAGES, TEST_LABELS)
    data = load_data(str(tmp_path / "set"))
    assert len(data.train) + len(data.validation) + len(data.test) == 40
    assert any("unsupervised-0.parquet" in note for note in data.notes)


def test_natural_resolution_is_that_of_the_images_or_near_their_median(tmp_path: Path) -> None:
    assert (
        load_data(str(make_folder(tmp_path / "alike", random_images(20, size=12), alternating_labels(20)))).resolution
        == 12
    )
    root = make_folder(tmp_path / "mixed", random_images(10, size=60), alternating_labels(10))
    make_folder(root, random_images(11, size=70), alternating_labels(11), prefix="b")
    assert load_data(str(root)).resolution == 64
    large = make_folder(tmp_path / "large", random_images(10, size=300), alternating_labels(10))
    assert load_data(str(large)).resolution == 224


def test_one_channel_only_if_every_image_is_grey(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", GREY, LABELS)
    assert load_data(str(root)).channels == 1
    assert load_data(str(root), channels=3).train.images.shape[1] == 3
    make_folder(root, IMAGES[:1], [0], prefix="colour")
    assert load_data(str(root)).channels == 3
    assert load_data(str(root), channels=1).train.images.shape[1] == 1


def test_a_damaged_image_is_named_and_left_out_or_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set", IMAGES, LABELS)
    (root / "0" / "broken.png").write_bytes(encoded(TEST_IMAGES[0])[:60])
    (root / "1" / "text.jpg").write_text("no image at all")
    for _ in range(2):  # decoded, then from the cache
        data = load_data(str(root))
        assert len(data.train) + len(data.validation) + len(data.test) == 40
        assert len(data.skipped) == 2
        assert any(line.startswith("0/broken.png: ") for line in data.skipped)
        assert any(line.startswith("1/text.jpg: these bytes are no PNG, ") for line in data.skipped)
        with pytest.raises(DataError, match=r"2 images damaged: ./(broken|text)"):
            load_data(str(root), strict=True)


def test_a_parquet_row_without_bytes_is_skipped(tmp_path: Path) -> None:
    images = [encoded(image) for image in IMAGES]
    images[7] = b""
    data = load_data(str(make_parquet(tmp_path / "set.parquet", images, LABELS)))
    assert [line.split(":")[0] for line in data.skipped] == ["set.parquet row 7"]


def test_limit_takes_classes_and_splits_in_their_shares(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", random_images(80), [0] * 60 + [1] * 20)
    make_folder(tmp_path / "test", random_images(40, seed=1), [0] * 30 + [1] * 10)
    data = load_data(str(tmp_path), limit=60)
    counts = torch.bincount(torch.cat((data.train.labels, data.validation.labels))).tolist()
    assert counts == [30, 10]
    assert torch.bincount(data.test.labels).tolist() == [15, 5]


def test_copies_across_given_splits_are_reported(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", IMAGES, LABELS)
    make_folder(tmp_path / "test", IMAGES[:4], LABELS[:4])
    assert any("of the test split are in the training split too" in note for note in load_data(str(tmp_path)).notes)


def test_unbalanced_and_absent_classes_are_reported(tmp_path: Path) -> None:
    balanced = make_parquet(tmp_path / "balanced.parquet", IMAGES, LABELS, names=["cat", "dog"])
    skewed = make_parquet(tmp_path / "skewed.parquet", IMAGES, [0] * 32 + [2] * 8, names=["cat", "dog", "eel"])
    assert load_data(str(balanced)).notes == ()
    assert load_data(str(skewed)).notes == (
        "classes are unbalanced: 24 images of 'cat' to train on, 6 images of 'eel'; "
        "`balance: true` in a recipe lets classes count alike",
        "no training image has the class 'dog'",
    )


def test_progress_reaches_the_number_of_images(tmp_path: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}
    load_data(
        str(make_folder(tmp_path, IMAGES, LABELS)),
        progress=lambda stage, done, total: seen.update({stage: (done, total)}),
    )
    assert seen == {"reading": (40, 40), "looking": (40, 40), "decoding": (40, 40)}


class HubSplit:
    """The part of `datasets.Dataset` that is used."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self.table = parquet.read_table(path)
        self.features = self
        self.arrow_schema = self.table.schema

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def to_dict(self) -> dict[str, Any]:
        return {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}

    def select_columns(self, columns: list[str]) -> "HubSplit":
        assert columns == ["image", "label"]
        return self

    def with_format(self, name: str) -> "HubSplit":
        assert name == "arrow"
        return self

    def iter(self, batch_size: int) -> Iterator[Any]:
        return iter(self.table.to_batches(max_chunksize=batch_size))


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_parquet(tmp_path / "hub.parquet", IMAGES, LABELS, names=["cat", "dog"])
    library = ModuleType("datasets")
    library.load_dataset = lambda name: {"train": HubSplit(file)}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    data = load_data("hf:someone/pets")
    assert (data.name, data.kind, data.classes) == ("pets", "hub", ("cat", "dog"))
    assert data.fingerprint == load_data(str(file)).fingerprint
