"""What commands make of what they were given."""

from pathlib import Path

import pytest

from nas.cli.options import name_of


def test_what_is_made_of_a_network_is_named_after_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in ("one", "other"):
        (tmp_path / run / "finalists").mkdir(parents=True)
        for name in ("run.json", "network.pt", "last.pt", "finalists/0123.pt"):
            (tmp_path / run / name).touch()
    (tmp_path / "small.nasz").touch()
    monkeypatch.chdir(tmp_path)
    for run in ("one", "other"):
        assert name_of(run) == name_of(Path(run) / "network.pt") == name_of(f"{run}/") == run
        assert name_of(f"{run}/last.pt") == f"{run}-last"
    monkeypatch.chdir(tmp_path / "one")
    assert name_of(".") == name_of("network.pt") == "one"
    assert name_of("mobilenet_v2") == "mobilenet_v2"
    assert name_of("finalists/0123.pt") == "0123"
    assert name_of("../small.nasz") == "small"
