"""What cannot be used is refused with one line that says what must hold, what was got, and what to do."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas.data import load_data
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

IMAGES, LABELS = random_images(20), alternating_labels(20)
GREY = random_images(20, channels=1)


def nothing(root: Path) -> Path:
    return root / "nowhere"


def other_kind(root: Path) -> Path:
    path = root / "data.csv"
    path.write_text("a,b")
    return path


def no_images(root: Path) -> Path:
    (root / "cats").mkdir()
    (root / "stray.png").write_bytes(encoded(IMAGES[0]))
    return root


def one_class(root: Path) -> Path:
    return make_folder(root, IMAGES, np.zeros(20, dtype=np.int64))


def too_few(root: Path) -> Path:
    return make_folder(root, IMAGES, [0] * 18 + [1] * 2)


def only_copies(root: Path) -> Path:
    return make_folder(root, np.repeat(IMAGES[:2], 10, axis=0), np.repeat([0, 1], 10))


def all_damaged(root: Path) -> Path:
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for index in range(4):
            (root / name / f"{index}.png").write_bytes(f"{name} {index}".encode())
    return root


def cut_images(root: Path) -> Path:
    for index, image in enumerate(IMAGES):  # headers are whole, pixels are not
        path = root / str(index % 2) / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(image)[:60])
    return root


def too_few_undamaged(root: Path) -> Path:
    make_folder(root, IMAGES, LABELS)
    for path in sorted((root / "1").iterdir())[2:]:
        path.write_bytes(path.read_bytes()[:60])
    return root


def class_only_in_test(root: Path) -> Path:
    make_folder(root / "train", IMAGES, LABELS)
    make_folder(root / "test", IMAGES[:4], [0, 1, 2, 2])
    return root


def class_only_in_validation(root: Path) -> Path:
    make_folder(root / "train", IMAGES, LABELS)
    make_folder(root / "val", IMAGES[:4], [0, 1, 7, 7])
    return root


def splits_beside_classes(root: Path) -> Path:
    make_folder(root / "train", IMAGES, LABELS)
    return make_folder(root, IMAGES[:4], [5, 6, 7, 8])


def splits_without_training(root: Path) -> Path:
    make_folder(root / "val", IMAGES, LABELS)
    make_folder(root / "test", IMAGES, LABELS)
    return root


def parquet_without_labels(root: Path) -> Path:
    return make_parquet(root / "a.parquet", IMAGES, LABELS, columns=("image", "caption_id"))


def parquet_without_images(root: Path) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["a"], "label": [0]}), root / "a.parquet")
    return root / "a.parquet"


def parquet_cut_short(root: Path) -> Path:
    path = make_parquet(root / "a.parquet", IMAGES, LABELS)
    path.write_bytes(path.read_bytes()[:-50])
    return path


def parquet_unlabelled(root: Path) -> Path:
    return make_parquet(root / "a.parquet", IMAGES, [*LABELS[:-1].tolist(), None])


def parquet_label_without_name(root: Path) -> Path:
    return make_parquet(root / "a.parquet", IMAGES, LABELS - 1, names=["cat", "dog"])


def parquet_real_labels(root: Path) -> Path:
    return make_parquet(root / "a.parquet", IMAGES, LABELS + 0.5)


def parquet_lists_of_labels(root: Path) -> Path:
    return make_parquet(root / "a.parquet", IMAGES, [[0], *([[0, 1]] * 19)])


def parquet_other_columns(root: Path) -> Path:
    make_parquet(root / "train-0.parquet", IMAGES, LABELS)
    make_parquet(root / "test-0.parquet", IMAGES, LABELS, columns=("image", "id"))
    return root


def parquet_empty(root: Path) -> Path:
    return make_parquet(root / "a.parquet", [], [])


def npz_real_labels(root: Path) -> Path:
    return make_npz(root / "a.npz", {"x": IMAGES, "y": LABELS + 0.5})


def npz_empty(root: Path) -> Path:
    return make_npz(root / "a.npz", {"x": np.zeros((0, 8, 8), dtype=np.float32), "y": LABELS[:0]})


def npz_no_pixels(root: Path) -> Path:
    return make_npz(root / "a.npz", {"x": np.zeros((20, 0, 8), dtype=np.uint8), "y": LABELS})


def npz_of_objects(root: Path) -> Path:
    return make_npz(root / "a.npz", {"x": np.array([{"hostile": 1}] * 20, dtype=object), "y": LABELS})


def npz_cut_short(root: Path) -> Path:
    path = make_npz(root / "a.npz", {"x": IMAGES, "y": LABELS})
    path.write_bytes(path.read_bytes()[:500])
    return path


def npz_damaged(root: Path) -> Path:
    path = make_npz(root / "a.npz", {"x": IMAGES, "y": LABELS})
    content = path.read_bytes()
    path.write_bytes(content[:400] + bytes([content[400] ^ 1]) + content[401:])
    return path


def npz_other_names(root: Path) -> Path:
    return make_npz(root / "a.npz", {"pictures": IMAGES, "targets": LABELS})


def npz_counts(root: Path) -> Path:
    return make_npz(root / "a.npz", {"x": IMAGES, "y": LABELS[:-1]})


def npz_shape(root: Path) -> Path:
    return make_npz(root / "a.npz", {"x": IMAGES.reshape(20, -1), "y": LABELS})


def npz_range(root: Path) -> Path:
    return make_npz(root / "a.npz", {"x": IMAGES.astype(np.float32), "y": LABELS})


def npz_type(root: Path) -> Path:
    return make_npz(root / "a.npz", {"x": IMAGES.astype(np.int64), "y": LABELS})


def npz_several_labels(root: Path) -> Path:
    return make_npz(root / "a.npz", {"x": IMAGES, "y": np.stack([LABELS, LABELS], axis=1)})


def npz_mixed_labels(root: Path) -> Path:
    words = np.array(["a", "b"])[LABELS]
    return make_npz(root / "a.npz", {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": words})


def idx_magic(root: Path) -> Path:
    folder = make_idx(root, "train", GREY, LABELS)
    (folder / "train-images-idx3-ubyte").write_bytes(b"GIF89a" + bytes(100))
    return folder


def idx_cut_short(root: Path) -> Path:
    path = make_idx(root, "train", GREY, LABELS) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    return root


def idx_gzip_cut_short(root: Path) -> Path:
    path = make_idx(root, "train", GREY, LABELS, compressed=True) / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-30])
    return root


def idx_header_cut_short(root: Path) -> Path:
    path = make_idx(root, "train", GREY, LABELS) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:10])
    return root


def idx_counts(root: Path) -> Path:
    make_idx(root, "train", GREY, LABELS)
    labels = root / "train-labels-idx1-ubyte"
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 19]) + labels.read_bytes()[8:27])
    return root


def idx_without_labels(root: Path) -> Path:
    (make_idx(root, "train", GREY, LABELS) / "train-labels-idx1-ubyte").unlink()
    return root


def idx_two_sets(root: Path) -> Path:
    make_idx(root, "emnist-letters-train", GREY, LABELS)
    return make_idx(root, "emnist-digits-train", GREY, LABELS)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (nothing, "no such file or folder; give a path"),
        (other_kind, "a .parquet file or an .npz file is needed"),
        (no_images, "found no image in a sub-folder; put images"),
        (one_class, "at least two classes .* got only '0'"),
        (too_few, "class '1' needs at least 3 different images .* got 2"),
        (only_copies, "needs at least 3 different images .* got 1"),
        (all_damaged, "images that can be read are needed, got 8 that cannot"),
        (cut_images, r"none of the 20 images can be decoded, for instance ./\d+.png: .*truncated"),
        (too_few_undamaged, "8 images damaged and left out: class '1' needs at least 3 different images .* got 2"),
        (class_only_in_test, "class '2' is in the test split but not in the training split"),
        (class_only_in_validation, "class '7' is in the validation split but not in the training split"),
        (
            splits_beside_classes,
            "all be splits or all be classes, got 'train', .* beside '5', '6', '7' …; put the classes into",
        ),
        (splits_without_training, "a folder train with one sub-folder .* is needed, got only test, val"),
        (parquet_without_labels, "a column of labels is needed .* got columns image, caption_id"),
        (parquet_without_images, "a column of encoded images .* got columns text, label"),
        (parquet_cut_short, "cannot be read as Parquet .* cut short"),
        (parquet_unlabelled, "a.parquet row 19: every image needs a label"),
        (parquet_label_without_name, r"from 0 to 1 \(2 class names\), got -1 in row 0"),
        (parquet_real_labels, "a.parquet row 0: a label must be a whole number or a string, got float"),
        (parquet_lists_of_labels, "must be a whole number or a string, got list"),
        (parquet_other_columns, "test-0.parquet: must have the columns of the other files, 'label' is missing"),
        (parquet_empty, "at least two classes .* got none"),
        (npz_real_labels, "labels must be whole numbers or strings, got float64"),
        (npz_empty, "at least two classes .* got none"),
        (npz_no_pixels, r"images must be .* got \(20, 0, 8\)"),
        (npz_of_objects, "array of Python objects, which is not loaded"),
        (npz_cut_short, "cannot be read as an .npz archive; it may be damaged, cut short"),
        (npz_damaged, "cannot be read as an .npz archive .*CRC"),
        (npz_other_names, "x_train and y_train .* got pictures, targets"),
        (npz_counts, "as many labels as images are needed, got 20 images and 19 labels"),
        (npz_shape, r"images must be \(N, H, W\), .* got \(20, 192\)"),
        (npz_range, "must be from 0 to 1, got 0 to 255"),
        (npz_type, "pixels must be uint8, .* got int64"),
        (npz_several_labels, r"one label an image is needed, got an array of shape \(20, 2\)"),
        (npz_mixed_labels, "labels must be of one type in every split"),
        (idx_magic, "must begin with the IDX magic 00000803, got 47494638"),
        (idx_cut_short, "its header tells of 1280 bytes, got 1279"),
        (idx_gzip_cut_short, "cannot be read .* cut short"),
        (idx_header_cut_short, r"cut short within its header \(10 bytes\)"),
        (idx_counts, "got 20 images and 19 labels"),
        (idx_without_labels, "its labels file is missing"),
        (idx_two_sets, "IDX files of one data set are needed, got emnist-digits-, emnist-letters-"),
    ],
)
def test_refused(tmp_path: Path, make: Callable[[Path], Path], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        load_data(str(make(tmp_path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"resolution": 0}, "resolution must be at least 1 pixel, got 0"),
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3 \(colour\), got 2"),
        ({"validation": 0.6, "test": 0.4}, "leave images to train on, got 0.6 and 0.4"),
        ({"validation": 0.0}, "must be above 0"),
        ({"test": float("nan")}, "must be above 0"),
        ({"limit": 0}, "limit must be at least 1 image, got 0"),
        ({"limit": 12}, r"digits \(limited to 12 images\): class '\d' needs at least 3 different images"),
    ],
)
def test_refused_arguments(arguments: dict[str, float], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_data("digits", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "source", "extra"), [("pyarrow", "a.parquet", "parquet"), ("datasets", "hf:mnist", "hub")]
)
def test_a_missing_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str, extra: str
) -> None:
    make_parquet(tmp_path / "a.parquet", IMAGES, LABELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf"pip install pocketnas\[{extra}\]"):
        load_data(source)


def test_an_unreadable_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        load_data(str(tmp_path))


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path, IMAGES, LABELS)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"\.png: cannot be read \(Permission denied\)"):
        load_data(str(tmp_path))
