"""`nas compress` on the command line: the contract's keys, exact files, resuming, one line for what is wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.checkpoint import load_checkpoint
from nas.compression.magnitude import layers
from tests.nas.cli.shell import Shell

QUICK = ("--epochs", 0.3, "--rounds", 1, "--density", 0.5)


@pytest.fixture
def trained(nas: Shell) -> Iterator[Path]:
    nas.json("train", "small.json", "--data", "digits", "--epochs", 1, "--threads", 1, "--seed", 3, "--out", "run")
    yield Path("run/network.pt")


def test_compressed_networks_are_read_like_checkpoints(nas: Shell, trained: Path) -> None:
    report = nas.json("compress", trained, "--data", "digits", *QUICK, "-o", "small.nasz", "--out", "squeezed")
    assert {"path", "bytes", "dense_bytes", "ratio", "accuracy_before", "accuracy_after"} <= report.keys()
    assert report["bytes"] == Path("small.nasz").stat().st_size
    in_tensors = sum(tensor["bytes"] for tensor in report["tensors"])
    assert report["bytes"] == in_tensors + report["other_bytes"]
    assert report["accuracy_before"] == nas.json("evaluate", trained, "--data", "digits")["accuracy"]
    assert report["accuracy_after"] == nas.json("evaluate", "small.nasz", "--data", "digits")["accuracy"]
    for file in (Path("small.nasz"), *Path("squeezed").glob("*.pt")):
        assert load_checkpoint(file).metrics["seed"] == 3, "as that divides the images"
    before = Path("small.nasz").read_bytes()
    again = nas.json("compress", trained, "--data", "digits", *QUICK, "-o", "small.nasz", "--out", "squeezed")
    assert again == report
    assert Path("small.nasz").read_bytes() == before


def test_wrong_input_is_one_line(nas: Shell, trained: Path) -> None:
    assert "--density" in nas.error("compress", trained, "--density", 0)
    assert "--conv-bits" in nas.error("compress", trained, "--conv-bits", 12)
    assert "NAME=DENSITY" in nas.error("compress", trained, "--layer-density", "head")
    assert "known:" in nas.error("compress", trained, "--layer-density", "nowhere=0.5", "--out", "other")
    assert "there lies a folder already" in nas.error("compress", trained, "-o", ".", "--out", "other")
    assert "cannot be written" in nas.error("compress", trained, "-o", "small.json/a.nasz", "--out", "other")
    named = [f"--layer-density={layer.name.removesuffix('.weight')}=0.5" for layer in layers(load_checkpoint(trained))]
    unused = nas.error("compress", trained, *named, "--density", 0.4, "--out", "other")
    assert "--density would change nothing" in unused
    assert not Path("other").exists(), "a folder is taken by what cannot be done"
    Path("cut.nasz").write_bytes(b"NASZ")
    assert "cut short" in nas.error("evaluate", "cut.nasz")
