"""Files are whole or not there; plain data is read as data."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchspace.errors import NasError
from searchspace.files import parse_plain, write_atomically, write_folder, write_together

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.binary())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("files") / "deep" / "er" / "file"
    write_atomically(path, content)
    write_atomically(path, content + b"!")
    assert path.read_bytes() == content + b"!"
    assert list(path.parent.iterdir()) == [path]


def test_a_failing_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NasError, match="No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_real_limit_on_the_size_of_files_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = (
        "from pathlib import Path\nfrom searchspace.files import write_atomically\nfrom searchspace.errors import NasError\n"
        f"try:\n    write_atomically(Path({str(path)!r}), bytes(1 << 20))\nexcept NasError as error:\n    print(error)"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    out = subprocess.run(
        [sys.executable, "-B", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=limit,
        cwd=Path(__file__).parents[2],
    )
    assert "cannot be written (File too large); nothing was changed" in out.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(NasError, match="cannot be written"):
        write_atomically(tmp_path, b"")


def test_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_together({one: b"1", other: b"2"})
    assert (one.read_bytes(), other.read_bytes()) == (b"1", b"2")
    other.unlink()
    other.mkdir()
    with pytest.raises(NasError, match="other: cannot be written"):
        write_together({one: b"3", other: b"4"})
    assert one.read_bytes() == b"1"
    assert {path.name for path in tmp_path.iterdir()} == {"one", "other"}


def test_a_folder_is_there_with_all_its_files_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, files = tmp_path / "deep" / "folder", {"a": b"1", "b": b"2"}
    write_folder(path, files)
    (path / "c").write_bytes(b"3")
    write_folder(path, {**files, "a": b"4"})
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {"a": b"4", "b": b"2", "c": b"3"}
    assert list(path.parent.iterdir()) == [path]
    written = iter([None])  # so many files, then the disk is full

    def full(descriptor: int) -> None:
        if next(written, OSError) is OSError:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NasError, match="No space left on device"):
        write_folder(tmp_path / "new", files)
    assert list(tmp_path.iterdir()) == [path.parent]


@given(plain)
def test_json_is_read_as_json(value: object) -> None:
    assert parse_plain(json.dumps(value)) == value


def test_yaml_numbers_are_numbers_and_tags_run_nothing() -> None:
    assert parse_plain("a: 1e-5\nb: -2E+3\nc: .5\nd: 1e5x") == {"a": 1e-5, "b": -2000.0, "c": 0.5, "d": "1e5x"}
    with pytest.raises(NasError, match="not JSON or YAML"):
        parse_plain("!!python/object/apply:os.system ['true']")


@pytest.mark.parametrize("bracket", ["[", '{"a":', "- "])
def test_deep_nesting_is_refused_like_other_text(bracket: str) -> None:
    with pytest.raises(NasError, match="nested too deeply"):
        parse_plain(bracket * 5_000)
