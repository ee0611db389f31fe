"""`nas show` and `nas import` on the command line: the contract's keys, what people see, one line for what is wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nas.checkpoint import load_checkpoint
from searchspace.architecture import lower
from searchspace.references import reference
from tests.nas.cli.shell import Shell
from tests.searchspace.fixtures.originals import ORIGINALS, state_of

SOURCE = ORIGINALS["timm-mobilenetv4_conv_small_050"]
ARCH = ("--arch", "mobilenet_v4_conv_s", "--width-multiplier", "0.5")


@pytest.fixture
def nas(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    yield Shell(capsys, monkeypatch)


@pytest.fixture
def weights(nas: Shell) -> Path:
    path = Path("weights.pth")
    torch.save(state_of(SOURCE), path)
    return path


def test_show_gives_the_contracts_keys(nas: Shell) -> None:
    told = nas.json(
        "show", "mobilenet_v2", "--width-multiplier", 0.5, "--resolution", 96, "--classes", 10, "--channels", 1
    )
    architecture = reference("mobilenet_v2", width_multiplier=0.5, resolution=96, classes=10, channels=1)
    lowered = lower(architecture)
    assert (told["fingerprint"], told["resolution"], told["classes"]) == (architecture.fingerprint, 96, 10)
    for cost in ("params", "macs", "weights_bytes", "peak_activation_bytes"):
        assert told[cost] == getattr(lowered, cost)
    keys = {"name", "cin", "cout", "kernel", "stride", "groups", "out_h", "out_w", "params", "macs"}
    assert all(keys <= layer.keys() for layer in told["layers"])
    assert told["layers"][0] | {"name": "blocks.0.conv", "cin": 1, "cout": 16, "out_h": 48} == told["layers"][0]


def test_show_prints_a_row_for_each_block_whole(nas: Shell) -> None:
    _, out, _ = nas("show", "mobilenet_v4_hybrid_l")
    assert "…" not in out
    assert sum("MQA 8 heads" in line for line in out.splitlines()) == 8
    assert "37,764,624 parameters, 7,711,877,120 MACs" in out


def test_show_layers_prints_each(nas: Shell) -> None:
    _, out, _ = nas("show", "squeezenet_1_1", "--layers")
    assert "blocks.3.expand3x3" in out
    assert "head.classifier" in out


def test_show_of_two_says_what_differs(nas: Shell) -> None:
    _, out, _ = nas("show", "squeezenet_1_0", "squeezenet_1_0_simple_bypass")
    assert out.count("bypass none → identity") == 4
    assert "params: 1,248,424 → 1,248,424 (+0.0%)" in out
    told = nas.json("show", "squeezenet_1_0", "squeezenet_1_0_simple_bypass")
    assert told["changes"][0] == {"place": "blocks.3", "kind": "fire", "fields": {"bypass": ["none", "identity"]}}
    _, same, _ = nas("show", "squeezenet_1_0", "squeezenet_1_0")
    assert "the same network" in same


def test_import_makes_a_checkpoint(nas: Shell, weights: Path) -> None:
    told = nas.json("import", *ARCH, "--weights", weights, "-o", "out/small.pt")
    checkpoint = load_checkpoint(Path("out/small.pt"))
    assert told["checkpoint"] == "out/small.pt"
    assert told["tensors"] == len(checkpoint.state)
    assert told["fingerprint"] == checkpoint.architecture.fingerprint
    assert checkpoint.architecture.classes == 1000
    shown = nas.json("show", "out/small.pt")
    assert shown["fingerprint"] == told["fingerprint"]


def test_import_says_that_the_classifier_starts_anew(nas: Shell, weights: Path) -> None:
    code, out, err = nas("import", *ARCH, "--weights", weights, "-o", "ten.pt", "--classes", 10)
    assert code == 0
    assert "10 classes" in out
    assert "the classifier starts anew with 10 classes" in " ".join(err.split())


@pytest.mark.parametrize("trouble", ["width", "missing", "extra", "dtype", "truncated", "absent"])
def test_import_refuses_what_does_not_fit_and_writes_nothing(nas: Shell, weights: Path, trouble: str) -> None:
    tensors = state_of(SOURCE)
    arch: tuple[str, ...] = ARCH
    expected = "conv_stem.weight"
    match trouble:
        case "width":
            arch = ARCH[:2]
            expected = "blocks.0.0.conv.weight: mobilenet_v4_conv_s needs the shape [32, 32, 3, 3], got [16, 32, 3, 3]"
        case "missing":
            del tensors["conv_head.weight"]
            expected = "needs the tensor conv_head.weight, which the weights do not have"
        case "extra":
            tensors["surplus"] = torch.zeros(1)
            expected = "the weights have the tensor surplus"
        case "dtype":
            tensors["conv_stem.weight"] = tensors["conv_stem.weight"].half()
            expected = "conv_stem.weight: float32 is needed, got float16"
    torch.save(tensors, weights)
    if trouble == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
        expected = "weights.pth: is cut short or damaged"
    if trouble == "absent":
        weights.unlink()
        expected = "weights.pth: a file of weights is needed, got none (No such file"
    assert expected in nas.error("import", *arch, "--weights", weights, "-o", "out.pt")
    assert not Path("out.pt").exists()


def test_show_suggests_the_nearest_name(nas: Shell) -> None:
    assert "did you mean mobilenet_v2?" in nas.error("show", "mobilenet_v22")
