"""`nas doctor` and `nas --version`: what is there is told as it is."""

import importlib.metadata
import json
from pathlib import Path

from tests.nas.cli.test_frame import nas


def test_version(tmp_path: Path) -> None:
    assert nas("--version", home=tmp_path).stdout.strip() == f"pocketnas {importlib.metadata.version('pocketnas')}"


def test_doctor_tells_packages_extras_programs_and_targets(tmp_path: Path) -> None:
    found = json.loads(nas("doctor", "--json", home=tmp_path).stdout)
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    extras = {extra["name"]: extra for extra in found["extras"]}
    assert extras["parquet"]["installed"]
    assert "dev" not in extras
    (host,) = [target for target in found["targets"] if target["name"] == "host"]
    assert not host["ready"]
    assert "nas profile" in host["reason"]
    said = nas("doctor", home=tmp_path).stdout
    assert "pip install pocketnas[" in said or all(extra["installed"] for extra in found["extras"])
