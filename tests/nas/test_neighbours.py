"""A latency model for trimming is fitted to what trimming makes."""

import dataclasses
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from latency.fake import FakeDevice
from latency.profiling import profile_target
from latency.target import Target, load_target
from nas.calibration import Calibrated, Untold
from nas.neighbours import PROBES, knows, model_near, neighbours
from nas.prediction import NETWORKS
from searchspace.architecture import Architecture
from searchspace.blocks import UIB, ClassicHead, Conv
from searchspace.width import widths
from tests.nas.family import TINY
from tests.searchspace.strategies import architectures


@settings(max_examples=15)
@given(architectures())
def test_neighbours_are_narrower_or_shorter(architecture: Architecture) -> None:
    first, *others = islice(neighbours(architecture, seed=3), 12)
    assert first == architecture
    most = {width.fields[0]: width.count for width in widths(architecture)}
    for one in others:
        assert len(one.blocks) <= len(architecture.blocks)
        assert max(width.count for width in widths(one)) <= max(most.values())
        assert one.input_shape == architecture.input_shape
    assert [one.fingerprint for one in islice(neighbours(architecture, seed=3), 12)] == [
        one.fingerprint for one in (first, *others)
    ]


def test_a_model_that_does_not_know_the_network_is_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    device = FakeDevice("host")
    monkeypatch.setattr(Target, "open", lambda target: device)
    monkeypatch.setattr("latency.store.require_equal", lambda *facts: None)  # the pretended device is not this machine
    target, notes = load_target("host"), list[str]()
    model = model_near(target, TINY, note=notes.append)
    assert notes == ["target 'host' has no latency model yet: run `nas profile --target host`; it is profiled now"]
    assert knows(model, TINY)
    assert model_near(target, TINY, note=notes.append).measurements == model.measurements
    assert len(notes) == 1
    larger: Any = dataclasses.replace(TINY, resolution=20)
    assert not knows(model, larger)
    assert len(model_near(target, larger, note=notes.append).measurements) > len(model.measurements)
    assert "does not know what trimming makes of this network yet" in notes[-1]


ALIGNED = Architecture(
    (Conv(cout=64), UIB(cout=64, hidden=128, residual=True), Conv(cout=128, kernel=1)),
    ClassicHead(),
    resolution=8,
    channels=3,
    classes=5,
)


def test_a_model_of_aligned_widths_alone_does_not_know_what_trimming_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows the start; and after that all that is asked about, so nothing is profiled a third time."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    device = FakeDevice("host")
    monkeypatch.setattr(Target, "open", lambda target: device)
    monkeypatch.setattr("latency.store.require_equal", lambda *facts: None)
    target, notes = load_target("host"), list[str]()
    aligned = (
        one
        for one in neighbours(ALIGNED, seed=5)
        if all(width.count % 16 == 0 for width in widths(one)) and len(one.blocks) == len(ALIGNED.blocks)
    )
    before = profile_target(target, aligned, networks=30, device=device)
    before.predict(ALIGNED)
    assert not knows(before, ALIGNED)
    untold = Untold()
    predict = Calibrated(before).telling(untold)
    asked = list(islice(neighbours(ALIGNED), PROBES))
    known = {one for one in asked if predict(one) < float("inf")}
    assert known and untold and known.isdisjoint(untold.networks)
    assert "was never measured" in untold.why and "nas profile" not in untold.why
    assert set(untold.examples) <= set(asked)
    model = model_near(target, ALIGNED, note=notes.append)
    assert "does not know what trimming makes of this network yet" in notes[-1]
    assert knows(model, ALIGNED)
    assert len(model_near(target, ALIGNED, note=notes.append).measurements) == 30 + NETWORKS  # type: ignore[union-attr]
