"""Targets over ssh, from the command line: what is wrong is one line, and a search runs from end to end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import onnx
import pytest
from onnx import TensorProto, helper

from tests.latency.sshd import Sshd, open_sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Sshd]:
    started = open_sshd(tmp_path_factory.mktemp("sshd"))
    yield started
    started.cut()


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    folder = str(tmp_path_factory.mktemp("home"))
    return {**os.environ, "XDG_DATA_HOME": folder, "POCKETNAS_LOCKS": folder, "XDG_CACHE_HOME": folder}


def nas(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nas", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_what_is_wrong_is_one_line(server, environment, tmp_path):
    unknown = onnx.helper.make_model(
        helper.make_graph(
            [helper.make_node("NotAnOp", ["x"], ["y"], domain="nobody")],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("nobody", 1)],
        ir_version=8,
    )
    onnx.save(unknown, str(tmp_path / "unknown.onnx"))
    good = server.target_file(tmp_path / "good.yaml")
    wrong = [
        (server.target_file(tmp_path / "key.yaml", prot=22), "unknown key 'prot' (did you mean 'port'?)"),
        (server.target_file(tmp_path / "python.yaml", python="/nowhere"), "needs python3 with numpy and onnxruntime"),
        (good, "the runtime there lacks the op nobody:NotAnOp, which the model needs"),
    ]
    for target, message in wrong:
        ended = nas(environment, "measure", tmp_path / "unknown.onnx", "--target", target)
        assert ended.returncode == 2, ended.stderr
        [line] = [line for line in ended.stderr.splitlines() if line.strip()]
        assert message in line
        assert ended.stdout == ""
    ended = nas(environment, "predict", "mobilenet_v2", "--target", good)
    assert ended.returncode == 2
    assert f"run `nas profile --target {good}`" in ended.stderr
    [row] = json.loads(nas(environment, "targets", good, "--json").stdout)["targets"]
    assert (row["name"], row["basis"], row["ready"]) == ("board", "measured", False)
    assert "connected: " in row["reason"]
    assert "no latency model yet" in row["reason"]
    server.cut()
    try:
        [row] = json.loads(nas(environment, "targets", good, "--json").stdout)["targets"]
    finally:
        server.start()
    assert not row["ready"]
    assert "Connection refused: is it on, and does `ssh -F" in row["reason"]


@pytest.mark.slow
def test_a_search_over_ssh(server, environment, tmp_path):
    target = server.target_file(tmp_path / "board.yaml")
    ended = nas(
        environment,
        *("search", "--target", target, "--trials", 2, "--rungs", "200,400", "--epochs", 0.5, "--finalists", 1),
        *("--out", tmp_path / "run", "--json"),
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["target"], found["basis"]) == ("board", "measured")
    assert all(entry["measured_ms"] > 0 and entry["unmeasured"] is None for entry in found["front"])
    [row] = json.loads(nas(environment, "targets", target, "--json").stdout)["targets"]
    assert row["ready"]
    checkpoint = found["front"][0][
        "checkpoint"
    ]  # of the space: other networks may have kernels that were never measured
    [told] = json.loads(nas(environment, "predict", checkpoint, "--target", target, "--json").stdout)["predictions"]
    assert told["basis"] == "measured"
