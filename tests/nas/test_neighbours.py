"""A latency model for trimming is fitted to what trimming makes."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from latency.fake import FakeDevice
from latency.target import Target, load_target
from nas.neighbours import knows, model_near, neighbours
from searchspace.architecture import Architecture
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
    import dataclasses

    larger: Any = dataclasses.replace(TINY, resolution=20)
    assert not knows(model, larger)
    assert len(model_near(target, larger, note=notes.append).measurements) > len(model.measurements)
    assert "does not know what trimming makes of this network yet" in notes[-1]
