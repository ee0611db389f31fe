"""Images that stay in their file: processes share it instead of copies, and how much memory there is to copy into."""

import pickle
import shutil
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch

from nas.data import Batches, Data, Split, load_data
from nas.data.mapping import mapped_images, memory_bytes
from nas.errors import DataError
from tests.nas.data.making import alternating_labels, make_folder, random_images

SPLITS = ("train", "validation", "test")


@pytest.fixture(params=["memory", "mapped"])
def data(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    path = make_folder(tmp_path / "folder", random_images(200, seed=1), alternating_labels(200))
    if request.param == "mapped":
        monkeypatch.setattr("nas.data.loading.MEMORY_SHARE", 0.0)
    return load_data(str(path))


def same(one: Split, other: Split, data: Data) -> bool:
    served = (Batches(split=split, data=data, batch_size=7, seed=2).epoch(1) for split in (one, other))
    return all(
        torch.equal(images, others) and torch.equal(labels, other_labels)
        for (images, labels), (others, other_labels) in zip(*served, strict=True)
    )


def test_another_process_maps_the_file(data: Data) -> None:
    sent = bytes(ForkingPickler.dumps(data))
    assert len(sent) < len(data.train) * 50, "images were sent"
    received = pickle.loads(sent)
    for name in SPLITS:
        split, there = getattr(data, name), getattr(received, name)
        assert not any(tensor.is_shared() for tensor in (split.images, split.labels)), "copied into shared memory"
        assert same(split, there, data)
        assert there.rows is not None
    again = pickle.loads(bytes(ForkingPickler.dumps(received)))
    assert same(data.test, again.test, data)


def test_a_part_of_a_split_is_those_images_wherever_they_are(data: Data) -> None:
    for index in (slice(3, None, 2), torch.tensor([4, 1, 4])):
        part = data.train.take(index)
        wanted = torch.arange(len(data.train))[index]
        places = wanted if data.train.rows is None else data.train.rows[wanted]
        plain = Split(data.train.images[places], data.train.labels[wanted])
        assert same(part, plain, data)
        assert same(pickle.loads(bytes(ForkingPickler.dumps(part))), plain, data)


def test_where_the_file_is_gone_images_in_memory_are_sent_and_mapped_ones_cannot_be(data: Data, cache: Path) -> None:
    shutil.rmtree(cache)
    if data.train.rows is None:
        assert same(pickle.loads(bytes(ForkingPickler.dumps(data.train))), data.train, data)
        return
    with pytest.raises(DataError, match="it is gone; run the same again"):
        ForkingPickler.dumps(data.train)
    with pytest.raises(DataError, match=r"images\.npy: decoded images are needed there, got No such file"):
        mapped_images(cache / "images.npy")


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        ("0::/", {"memory.max": "1000"}, 1000),
        ("0::/a/b", {"memory.max": "5000", "a/memory.max": "2000", "a/b/memory.max": "max"}, 2000),
        ("5:cpu:/\n4:memory:/job/1\n0::/", {"memory/job/memory.limit_in_bytes": "3000"}, 3000),
        ("4:cpu,memory:/elsewhere", {"memory/memory.limit_in_bytes": "4000"}, 4000),
        ("0::/", {"memory.max": "max"}, None),
        ("0::/", {}, None),
        (None, {}, None),
    ],
)
def test_memory_is_what_a_container_may_use(
    tmp_path: Path, cgroup: str | None, files: dict[str, str], limit: int | None
) -> None:
    machine = memory_bytes(tmp_path)
    assert machine > 10_000
    if cgroup is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(f"{cgroup}\n")
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    assert memory_bytes(tmp_path) == (machine if limit is None else limit)
