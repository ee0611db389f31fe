"""The contract that scripts rely on: every command has an example, takes --json, and prints one object with the fixed keys."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from latency.fake import FakeDevice
from latency.target import Target
from nas import proxy
from nas.cli import commands
from nas.cli.console import app
from nas.report import board
from tests.nas.cli.shell import Shell
from tests.nas.report.runs import search_run
from tests.searchspace.fixtures.originals import ORIGINALS, state_of
from tests.shared import free_port

__all__ = ["commands"]  # what registers the commands

SPACE = """{format: 1, name: tiny, resolution: auto, minimum_map: 2, stem: {width: 8, kernel: 3, stride: 2},
stages: [{depth: [1, 2], width: [8, 16], stride: 2, blocks: {uib: {expansion: [1, 2], dw_start: [0, 3], dw_mid: 3}}}],
head: {kind: classic}}"""
IN_TURN = """
show small.json | name fingerprint resolution classes params macs weights_bytes peak_activation_bytes layers
import --arch mobilenet_v4_conv_s --width-multiplier 0.5 --weights weights.pth -o got.pt | checkpoint fingerprint tensors
profile --space space.yaml --networks 12 --resolution 8 | target networks device_seconds held_out noise_p95
predict small.json --target pixel1 | target predictions
measure small.json | median_ms p90_ms mad_ms runs stable predicted_ms ops
train small.json --epochs 0.2 --threads 1 --out run | checkpoint accuracy epochs images_per_second
evaluate run | accuracy loss images
netadapt run --budget-ratio 0.95 --step 0.05 --short-images 32 --epochs 0.2 --workers 1 --importance l2 --out trimmed \
    | checkpoint accuracy start_ms predicted_ms measured_ms steps
compress run --epochs 0.2 --rounds 1 -o small.nasz --out squeezed | path bytes dense_bytes ratio accuracy_before accuracy_after
export run --format onnx --data digits | path format bytes max_abs_diff accuracy
export run --format onnx-int8 --data digits --measure none | path format bytes max_abs_diff accuracy
export run --format ort --data digits | path format bytes max_abs_diff accuracy
export run --format torch --data digits | path format bytes max_abs_diff accuracy
search --space space.yaml --trials 2 --rungs 64 --epochs 0.1 --finalists 1 --workers 1 --sampler random \
    --storage sqlite:///study.db --out found | run study trials best front rank
worker --storage sqlite:///study.db | trials
report found --storage sqlite:///study.db -o found.html | path
dashboard searched --port 0 | url
proxy --storage sqlite:///study.db --port {port} | url
targets | targets
doctor | version packages extras targets
"""
"""Every command, in an order in which each finds what it needs, and the keys it must give."""

COMMANDS = [
    (command.split(), set(keys.split()))
    for line in IN_TURN.replace("\\\n", "").strip().splitlines()
    for command, keys in [line.split("|")]
]
INNER = {  # of the values
    "show": ("layers", "name cin cout kernel stride groups out_h out_w params macs"),
    "profile": ("held_out", "n within_5 within_10 median_error p95_error spearman"),
    "predict": ("predictions", "fingerprint ms low_ms high_ms basis"),
    "search": ("front", "fingerprint accuracy predicted_ms measured_ms checkpoint"),
    "targets": ("targets", "name basis ready reason"),
}


@pytest.fixture
def ready(nas: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shell]:
    """The command line with a pretended device instead of this machine, and a dashboard and a proxy that are ended at once."""

    def ended(serve: Callable[..., Any], waits: str) -> Callable[..., Any]:
        def served(*arguments: Any, **options: Any) -> Any:
            server = serve(*arguments, **options)
            setattr(server, waits, _interrupted)
            return server

        return served

    monkeypatch.setattr(board, "server", ended(board.server, "serve_forever"))
    monkeypatch.setattr(proxy, "serve", ended(proxy.serve, "wait_for_termination"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(Target, "open", lambda target: FakeDevice(target.name))
    Path("space.yaml").write_text(SPACE)
    torch.save(state_of(ORIGINALS["timm-mobilenetv4_conv_small_050"]), "weights.pth")
    search_run(Path("searched"))
    yield nas
    torch.set_num_threads(1)


def _interrupted() -> None:
    raise KeyboardInterrupt


def test_every_command_gives_one_object_with_the_contracts_keys(ready: Shell) -> None:
    """`Shell.json` parses the whole of stdout: anything beside the one object would not pass."""
    for (command, *arguments), keys in COMMANDS:
        told = ready.json(command, *(argument.format(port=free_port()) for argument in arguments))
        assert keys <= told.keys(), command
        if command in INNER:
            name, inner = INNER[command]
            rows = told[name] if isinstance(told[name], list) else [told[name]]
            assert rows, f"{command}: {name} is empty"
            assert all(set(inner.split()) <= row.keys() for row in rows), f"{command}: {name}"
        if command == "search":
            assert {"complete", "pruned", "infeasible", "failed"} <= told["trials"].keys()
            assert {"tau", "low", "high"} <= told["rank"].keys()
    assert {command for (command, *_), _ in COMMANDS} == {name for name, _ in _commands()}, "a command is not tried"


def test_a_search_for_a_pixel_without_a_phone_says_what_its_milliseconds_are(
    nas: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path.cwd()))  # no adb, hence no phone
    Path("space.yaml").write_text(SPACE)
    brief = ("--trials", 2, "--rungs", 64, "--epochs", 0.1, "--finalists", 1, "--workers", 1, "--out", "found")
    code, out, err = nas(
        "search", "--target", "pixel", "--space", "space.yaml", "--sampler", "random", *brief, "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    assert (told["target"], told["basis"], told["precision"]) == ("pixel6", "published", "int8")
    assert told["front"]
    assert all(one["measured_ms"] is None for one in told["front"])
    assert all(0 < one["predicted_ms"] <= told["budget_ms"] for one in told["front"])
    assert "published" in err


def _commands() -> list[tuple[str, Any]]:
    group: Any = typer.main.get_command(app)
    return [(name, command) for name, command in group.commands.items() if name != "wait"]


@pytest.mark.parametrize("name", [name for name, _ in _commands()])
def test_every_command_has_an_example_and_takes_json(name: str, nas: Shell) -> None:
    command = dict(_commands())[name]
    leaves = command.commands if hasattr(command, "commands") else {name: command}
    for leaf in leaves.values():
        assert f"Example: [bold]nas {name}" in (leaf.help or "")
        assert any("--json" in parameter.opts for parameter in leaf.params), leaf.name
    code, out, _ = nas(name, "--help")
    assert code == 0
    assert "Example" in out
