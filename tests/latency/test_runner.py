"""The runner must run on devices that have next to nothing."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from latency import runner

SOURCE = Path(runner.__file__).read_text()


def test_it_is_python_3_8():
    ast.parse(SOURCE, feature_version=(3, 8))
    assert "from __future__ import annotations" in SOURCE  # so that newer annotations are never evaluated


def test_it_needs_only_numpy_and_onnxruntime():
    imported = set()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module)
    others = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert others == {"numpy", "onnxruntime"}


def test_importing_it_loads_neither():
    code = "import sys; from latency import runner; print('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "cpu"),
    [
        ("aarch64", "vendor_id : AuthenticAMD\nmodel name : AMD EPYC\ncpu family : 25\n", "emulated aarch64"),
        ("aarch64", "CPU implementer : 0x00\nCPU part : 0x000\n", "emulated aarch64"),
        ("aarch64", "CPU implementer : 0x41\nCPU part : 0xd08\n", "aarch64 (implementer 0x41, part 0xd08)"),
        ("x86_64", "vendor_id : AuthenticAMD\nmodel name : AMD EPYC\n", "AMD EPYC"),
    ],
)
def test_an_emulated_processor_is_called_so(monkeypatch, machine, cpuinfo, cpu):
    monkeypatch.setattr(runner.platform, "machine", lambda: machine)
    monkeypatch.setattr(runner.platform, "processor", lambda: "")
    monkeypatch.setattr(runner, "read_text", lambda path: cpuinfo)
    assert runner.cpu_facts()[0] == cpu


def run(folder: Path, job: object) -> list[dict[str, object]]:
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run([sys.executable, runner.__file__, str(folder)], capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_goes_wrong_is_an_event(tmp_path):
    [missing] = run(tmp_path, {"mode": "optimize", "models": ["none.onnx"], "settings": {"provider": "cpu"}})
    assert missing["event"] == "error"
    [unknown] = run(tmp_path, {"mode": "guess"})
    assert unknown == {"event": "error", "reason": "KeyError: 'guess'"}


def test_cores_with_automatic_affinity_are_the_last_ones():
    code = (
        "import os; from latency.runner import pin; allowed = sorted(os.sched_getaffinity(0))\n"
        "assert pin('none', 1) is None; assert pin('auto', 1) == [allowed[-1]] == sorted(os.sched_getaffinity(0))\n"
        "assert pin([allowed[0]], 1) == [allowed[0]]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
