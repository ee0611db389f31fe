"""The model a search gets knows its space; profiling begins with networks that have the rare kernels."""

from itertools import islice
from pathlib import Path

import pytest

from latency.fake import FakeDevice
from latency.features import measured_as
from latency.model import LatencyModel
from latency.planning import kernels
from latency.profiling import FEWEST_OF_A_KIND, profile_target
from latency.samples import varied_architectures
from latency.store import model_path
from latency.target import load_target
from nas import prediction
from nas.prediction import NETWORKS, knows, model_for, space_architectures
from searchspace.architecture import lower
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space

SPACE = load_space("default").adapt(channels=3, classes=10, resolution=32)
BLOCK = FakeDevice().describe().nchwc_block


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Models lie in a folder of their own, and the host is a pretended one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("latency.target.Target.open", lambda target: FakeDevice())
    monkeypatch.setattr("latency.store.require_equal", lambda *arguments: None)  # the pretended CPU is not this one


def test_what_is_measured_first_has_every_kind_of_kernel_of_the_space_often_enough() -> None:
    chosen = list(islice(space_architectures(SPACE, nchwc_block=BLOCK), NETWORKS))
    assert all(SPACE.contains(architecture) for architecture in chosen[:5])
    counts: dict[str, int] = {}
    for architecture in chosen:
        names = {name for kernel in kernels(lower(architecture), nchwc_block=BLOCK) for name in measured_as(kernel)}
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    source = RandomSuggest(7)
    for _ in range(500):
        for kernel in kernels(lower(SPACE.sample(source)), nchwc_block=BLOCK):
            for name in measured_as(kernel):
                assert counts.get(name, 0) >= FEWEST_OF_A_KIND, name


def test_a_model_is_profiled_once_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    model = model_for(load_target("host"), SPACE, note=notes.append)
    assert len(model.measurements) == NETWORKS
    assert knows(model, SPACE)
    assert "profiled now" in notes[0]
    monkeypatch.setattr(prediction, "profile_target", None)  # would fail if it were called
    again = model_for(load_target("host"), SPACE, note=notes.append)
    assert isinstance(again, LatencyModel)
    assert len(notes) == 1


def test_a_model_of_other_networks_is_extended_not_replaced() -> None:
    target = load_target("host")
    profile_target(target, varied_architectures(0), networks=30)
    notes: list[str] = []
    model = model_for(target, SPACE, note=notes.append)
    assert "does not know this space yet" in notes[0]
    assert len(model.measurements) == 30 + NETWORKS
    assert knows(model, SPACE)


def test_measurements_that_no_model_was_fitted_to_do_not_count_as_networks_of_the_space() -> None:
    """As an interrupted profile leaves them: beside the model lies a file with more than it was fitted to."""
    target = load_target("host")
    earlier = profile_target(target, varied_architectures(0), networks=30)
    path = model_path(target.name, earlier.provenance, target.settings)
    profile_target(target, varied_architectures(0), networks=30 + NETWORKS)
    earlier.save(path)
    model = model_for(target, SPACE, note=[].append)
    assert len(model.measurements) == 30 + 2 * NETWORKS
    assert knows(model, SPACE)
