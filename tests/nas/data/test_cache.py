"""The cache of decoded images: a hit is what decoding gives, damage is noticed, concurrent runs do not meet."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from nas.data import Data, load_data
from nas.data import decoding as decoding_module
from nas.errors import DataError
from tests.nas.data.making import alternating_labels, make_folder, random_images


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "set", random_images(40), alternating_labels(40))


def entries(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def same(first: Data, second: Data) -> bool:
    return first.fingerprint == second.fingerprint and all(
        a.images.equal(b.images) and a.labels.equal(b.labels)
        for a, b in zip(
            (first.train, first.validation, first.test), (second.train, second.validation, second.test), strict=True
        )
    )


def test_a_hit_is_what_decoding_gives_and_decodes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = load_data(str(root))
    monkeypatch.setattr(decoding_module, "decode", None)
    hit = load_data(str(root))
    assert same(fresh, hit)
    assert (hit.mean, hit.std, hit.notes) == (fresh.mean, fresh.std, ())


def test_seeds_share_an_entry_and_resolutions_do_not(root: Path, cache: Path) -> None:
    for seed in range(3):
        load_data(str(root), seed=seed)
    assert len(entries(cache)) == 1
    load_data(str(root), resolution=4)
    load_data(str(root), resolution=4, channels=1)
    assert len(entries(cache)) == 3


def test_a_changed_image_is_decoded_again_even_if_its_date_is_not(root: Path) -> None:
    before = load_data(str(root))
    victim, donor = sorted((root / "0").iterdir())[:2]
    status = victim.stat()
    victim.write_bytes(donor.read_bytes()[: status.st_size].ljust(status.st_size, b"\0"))
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load_data(str(root)).fingerprint != before.fingerprint


@pytest.mark.parametrize("name", ["images.npy", "digests.npy", "sums.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_a_damaged_entry_is_made_again_and_said(root: Path, cache: Path, name: str, damage: str) -> None:
    fresh = load_data(str(root))
    (entry,) = entries(cache)
    path = entry / name
    content = path.read_bytes()
    if damage == "changed":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 255]) + content[-2:])
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    mended = load_data(str(root))
    assert same(fresh, mended)
    assert len(mended.notes) == 1
    assert "was damaged" in mended.notes[0]
    assert name in mended.notes[0]
    assert load_data(str(root)).notes == ()


def test_a_manifest_that_is_not_an_object_is_damage(root: Path, cache: Path) -> None:
    load_data(str(root))
    (entry,) = entries(cache)
    (entry / "manifest.json").write_text(json.dumps([1, 2]))
    assert "was damaged" in load_data(str(root)).notes[0]


def test_what_a_killed_run_left_is_cleared(root: Path, cache: Path) -> None:
    fresh = load_data(str(root))
    (entry,) = entries(cache)
    entry.rename(entry.with_name(f"{entry.name}.partial"))
    assert same(fresh, load_data(str(root)))
    assert entries(cache) == [entry]


def test_a_full_disk_is_said_and_leaves_nothing(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot be kept there \(No space left on device\)"):
        load_data(str(root))
    assert entries(cache) == []


def test_a_cache_folder_can_be_named(root: Path, cache: Path, tmp_path: Path) -> None:
    load_data(str(root), cache=tmp_path / "elsewhere")
    assert len(entries(tmp_path / "elsewhere")) == 1
    assert not cache.exists()


def test_a_file_in_the_way_of_the_cache_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be kept there"):
        load_data(str(root), cache=tmp_path / "file")


def _load(root: str, cache: str, results: "multiprocessing.Queue[tuple[str, bool]]") -> None:
    stages: set[str] = set()
    data = load_data(root, cache=Path(cache), progress=lambda stage, done, total: stages.add(stage))
    results.put((data.fingerprint, "decoding" in stages))


def test_concurrent_runs_decode_once(root: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[str, bool]] = context.Queue()
    arguments = (str(root), str(tmp_path / "cache"), results)
    processes = [context.Process(target=_load, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    got = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert len({fingerprint for fingerprint, _ in got}) == 1
    assert sorted(decodes for _, decodes in got) == [False, True]
