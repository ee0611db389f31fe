"""Tar shards in WebDataset's layout are images as any others; what is wrong with one is said in one line."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from nas.data import Batches, load_data
from nas.errors import DataError
from tests.nas.data.making import alternating_labels, encoded, make_folder, random_images


def make_shard(path: Path, members: Mapping[str, bytes], *, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return path


def samples(first: int, count: int, *, as_json: bool = False) -> dict[str, bytes]:
    images = random_images(40, seed=1)
    members: dict[str, bytes] = {"README.txt": b"not a sample"}
    for index in range(first, first + count):
        members[f"deep/{index:04}.png"] = encoded(images[index])
        label = index % 2
        if as_json:
            members[f"deep/{index:04}.json"] = json.dumps({"label": label}).encode()
        else:
            members[f"deep/{index:04}.cls"] = str(label).encode()
    return members


def test_shards_give_the_same_data_as_a_folder(tmp_path: Path) -> None:
    make_shard(tmp_path / "tars" / "part-0.tar", samples(0, 25))
    make_shard(tmp_path / "tars" / "part-1.tar", samples(25, 15, as_json=True))
    folder = make_folder(tmp_path / "folder", random_images(40, seed=1), alternating_labels(40))
    tars, plain = (load_data(str(tmp_path / name)) for name in ("tars", "folder"))
    assert tars.kind == "shards"
    assert folder.is_dir()
    assert tars.fingerprint == plain.fingerprint
    assert torch.equal(tars.train.images, plain.train.images)
    assert torch.equal(tars.test.labels, plain.test.labels)


def test_names_of_shards_tell_the_split(tmp_path: Path) -> None:
    make_shard(tmp_path / "train-000.tar", samples(0, 30))
    make_shard(tmp_path / "test-000.tar", samples(30, 10))
    make_shard(tmp_path / "unlabeled-000.tar", {})
    data = load_data(str(tmp_path))
    assert len(data.test) == 10
    assert "unlabeled-000.tar was left out: its name tells of no known split" in data.notes
    one = load_data(str(tmp_path / "train-000.tar"))
    assert len(one.train) + len(one.validation) + len(one.test) == 30


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    cases = {
        "label": ({**samples(0, 4), "5.png": encoded(random_images(1)[0])}, "5 has no label"),
        "image": ({**samples(0, 4), "6.cls": b"1"}, "6 has no image"),
        "json": ({**samples(0, 4), "7.png": encoded(random_images(1)[0]), "7.json": b"{}"}, "7 has no label"),
    }
    for name, (members, message) in cases.items():
        path = make_shard(tmp_path / f"{name}.tar", members)
        with pytest.raises(DataError, match=message) as caught:
            load_data(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="uncompressed tar shard"):
        load_data(str(make_shard(tmp_path / "packed.tar", samples(0, 4), mode="w:gz")))


def test_a_damaged_image_in_a_shard_is_named_and_left_out(tmp_path: Path) -> None:
    members = samples(0, 30)
    members["deep/0007.png"] = members["deep/0007.png"][:40]
    data = load_data(str(make_shard(tmp_path / "some.tar", members)))
    assert len(data.skipped) == 1
    assert data.skipped[0].startswith("some.tar deep/0007: ")


def test_images_larger_than_memory_stay_in_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are served alike, bit by bit."""
    path = make_folder(tmp_path / "folder", random_images(40, seed=1), alternating_labels(40))
    in_memory = load_data(str(path))
    monkeypatch.setattr("nas.data.loading.MEMORY_SHARE", 0.0)
    mapped = load_data(str(path))
    assert in_memory.train.rows is None
    assert mapped.train.rows is not None
    assert mapped.train.images.untyped_storage().data_ptr() == mapped.test.images.untyped_storage().data_ptr()
    assert mapped.fingerprint == in_memory.fingerprint
    for split in ("train", "validation", "test"):
        both = [
            list(Batches(split=getattr(data, split), data=data, batch_size=7, seed=2).epoch(1))
            for data in (in_memory, mapped)
        ]
        for (images, labels), (others, other_labels) in zip(*both, strict=True):
            assert torch.equal(images, others)
            assert torch.equal(labels, other_labels)
