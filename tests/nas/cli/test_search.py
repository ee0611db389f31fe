"""`nas search` and `nas worker` from the command line, on a pretended device: their options do what they say."""

import json
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import torch

from latency.fake import FakeDevice
from latency.target import Target
from nas.sampling.history import CANDIDATE, OUTCOME
from nas.storage import PLAN, open_storage
from searchspace.architecture import Architecture, lower
from searchspace.blocks import UIB
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space
from tests.nas.cli.shell import Shell

SPACE = """{format: 1, name: tiny, resolution: auto, minimum_map: 2, stem: {width: 8, kernel: 3, stride: 2},
stages: [{depth: [1, 2], width: [8, 16, 24], stride: 2, blocks: {uib: {expansion: [2, 4], dw_start: [0, 3], dw_mid: [0, 3]}}}],
head: {kind: classic}}"""
BRIEFLY = ("--space", "space.yaml", "--rungs", "64", "--epochs", "0.1", "--finalists", "1", "--workers", "1")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where latency models are kept: the pretended device is profiled once."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def ready(nas: Shell, monkeypatch: pytest.MonkeyPatch, models: Path) -> Iterator[Shell]:
    monkeypatch.setenv("XDG_DATA_HOME", str(models))
    monkeypatch.setattr(Target, "open", lambda target: FakeDevice(target.name))
    Path("space.yaml").write_text(SPACE)
    yield nas
    torch.set_num_threads(1)


def trained(database: Path, name: str = "search") -> list[Architecture]:
    """The networks that a study trained, in the order of its trials."""
    study = optuna.load_study(study_name=name, storage=open_storage(f"sqlite:///{database}", make=False))
    ended = [one.user_attrs for one in study.trials if one.user_attrs.get(OUTCOME) in ("complete", "pruned")]
    return [Architecture.from_dict(one[CANDIDATE]["architecture"]) for one in ended]


def drawn(count: int) -> list[Architecture]:
    space = load_space("space.yaml").adapt(channels=1, classes=10, resolution=8)
    return [space.sample(RandomSuggest(seed)) for seed in range(count)]


def test_a_front_within_limits_from_a_start(ready: Shell) -> None:
    by_size = sorted(drawn(20), key=lambda network: lower(network).params)
    start, most = by_size[0], lower(by_size[10]).params
    Path("start.json").write_text(start.to_json())
    result = ready.json(
        *("search", *BRIEFLY, "--trials", 3, "--pareto", "--budget-ms", 1000, "--start", "start.json"),
        *("--max-params", most, "--also", "pixel6=1000", "--out", "run"),
    )
    limits = {"max_params": most, "max_weight_bytes": None, "max_peak_bytes": None, "also": {"pixel6": 1000}}
    assert result["limits"] == limits
    assert json.loads(Path("run/run.json").read_text())["limits"] == limits
    assert json.loads(Path("run/result.json").read_text())["limits"] == limits
    assert result["trials"]["complete"] + result["trials"]["pruned"] == 3
    networks = trained(Path("run/study.db"))
    assert networks[0] == start
    assert all(lower(network).params <= most for network in networks)
    assert 0 < result["feasible_share"] < 1
    for entry in result["finalists"]:
        assert entry["params"] <= most
        assert 0 < entry["also"]["pixel6"] <= 1000


def test_one_search_for_two_phones(ready: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latency.target._attached_pixels", lambda: None)
    limits = ("--budget-ms", 1000, "--also", "pixel=1000")
    search = ("search", *BRIEFLY, "--trials", 3, "--pareto", *limits, "--out", "run")
    against = ("--against", "pixel", "--against", "weight-bytes")
    result = ready.json(*search, *against)
    assert result["against"] == ["pixel6", "weight-bytes"]
    for entry in result["finalists"]:
        assert entry["costs"] == {"pixel6": entry["also"]["pixel6"], "weight-bytes": entry["weights_bytes"]}
    study = optuna.load_study(study_name="search", storage=open_storage("sqlite:///run/study.db", make=False))
    assert len(study.directions) == 3
    code, out, _ = ready(*search, *against)
    assert code == 0 and "accuracy against predicted ms on pixel6, bytes of weights" in " ".join(out.split())
    assert "was started with against ['pixel6', 'weight-bytes'], now None is asked for" in ready.error(*search)
    code, out, _ = ready("report", "run", "--json")
    assert code == 0 and "predicted ms on pixel6" in Path(json.loads(out)["path"]).read_text()


def test_two_stages_and_a_reward(ready: Shell) -> None:
    result = ready.json(
        *("search", *BRIEFLY, "--trials", 6, "--stages", "coarse,fine", "--reward", "soft"),
        *("--budget-ms", 1000, "--out", "run"),
    )
    assert result["trials"]["complete"] + result["trials"]["pruned"] == 6
    networks = trained(Path("run/study.db"))
    for network in networks[:3]:
        plain = [(block.dw_start, block.dw_mid) for block in network.blocks if isinstance(block, UIB)]
        assert plain and set(plain) == {(0, 3)}
    assert json.loads(Path("run/run.json").read_text())["request"]["reward"] == "soft"


def test_what_cannot_be_asked_for_is_one_line(ready: Shell) -> None:
    assert "--reward soft weighs accuracy" in ready.error("search", "--reward", "soft", "--score", "loss")
    assert "got --score training-loss" in ready.error("search", "--reward", "absolute", "--score", "training-loss")
    assert "got --pareto" in ready.error("search", "--pareto", "--reward", "soft")
    assert "--against params needs a search for the whole front" in ready.error("search", "--against", "params")
    assert "pixel6 was given twice" in ready.error("search", "--also", "pixel6=9", "--also", "pixel6=8")
    unknown = ready.error("search", "--pareto", "--against", "pixel1", "--also", "pixel6=9")
    assert "one of ms, params, weight-bytes, peak-bytes, or a target of --also (pixel6), got 'pixel1'" in unknown
    assert "recipe must be a readable file or one of brief" in ready.error("search", "--recipe", "none.yaml")
    line = ready.error("search", *BRIEFLY, "--max-params", 10, "--out", "run")
    assert "--max-params must be one that some network of the space meets, got 10 parameters; the least found" in line
    assert not Path("run/run.json").exists()


def test_recipes_are_part_of_what_was_asked_for(ready: Shell) -> None:
    Path("absurd.yaml").write_text("{images: 1000, lr: 1.0e+30}")
    Path("balanced.yaml").write_text("{epochs: 1, lr: 0.05, balance: true}")
    search = ("search", *BRIEFLY, "--trials", 2, "--out", "run")
    line = ready.error(*search, "--recipe", "absurd.yaml")
    assert "the loss of 2 of 2 became infinite" in line and "--recipe" in line
    assert "was started with recipe {" in ready.error(*search)
    search = ("search", *BRIEFLY, "--trials", 1, "--out", "balanced", "--recipe", "balanced.yaml")
    ready.json(*search, "--final-recipe", "balanced.yaml")
    assert "was started with final_recipe {" in ready.error(*search)


def test_a_worker_trains_what_a_search_still_wants(ready: Shell) -> None:
    search = ("search", *BRIEFLY, "--storage", "sqlite:///study.db", "--out", "run", "--trials", 1)
    assert ready.json(*search, "--budget-ms", 1000)["study"] == "search"
    study = optuna.load_study(study_name="search", storage=open_storage("sqlite:///study.db"))
    study.set_user_attr(PLAN, study.user_attrs[PLAN] | {"trials": 3})  # as a search that was killed leaves it
    code, out, err = ready("worker", "--storage", "sqlite:///study.db", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["trained"] == 2
    assert told["trials"]["complete"] + told["trials"]["pruned"] == 3
    assert len(trained(Path("study.db"))) == 3
    lines = [line for line in err.splitlines() if line.startswith("candidate ")]
    assert len(lines) == 2 and lines[-1].endswith("(3 of 3 trained)")

    ready.json(*search, "--budget-ms", 900)
    code, out, err = ready("worker", "--storage", "sqlite:///study.db", "--json")
    assert (code, json.loads(out)["trained"]) == (0, 0)
    assert "goes on with other limits as study search-900ms (1 of 1 trained): give it as --study" in err

    study.set_user_attr("identity", study.user_attrs["identity"] | {"format": 2})
    assert "a newer version of pocketnas made it" in ready.error("worker", "--storage", "sqlite:///study.db")
    assert "a newer version of pocketnas made it" in ready.error(*search, "--budget-ms", 1000)
