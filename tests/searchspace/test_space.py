"""Spaces: what they draw is theirs, decisions have stable names, files are checked key by key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchspace.architecture import Architecture
from searchspace.blocks import UIB, Fire
from searchspace.errors import SpaceError
from searchspace.sampling import FixedSuggest, RandomSuggest, every
from searchspace.space import load_space, parse_space
from tests.searchspace.strategies import DEFAULT, EVERYTHING, architectures

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
SMALL = """
format: 1
resolution: 8
stem: {width: 8, stride: 1}
stages:
  - depth: [1, 2]
    width: [8, 16]
    stride: 1
    blocks: {uib: {expansion: [1, 1.2, 2], dw_mid: [0, 3]}}
  - depth: [1, 2]
    width: 16
    stride: %d
    blocks: {uib: {expansion: [1, 2], dw_mid: [0, 3]}, fire: {bypass: [none, conv]}}
head: {kind: mobilenet, hidden: [8, 16], dropout: 0.1}
"""


class Recorder:
    """Random answers, with a record of what was asked."""

    def __init__(self, seed: int) -> None:
        self._source = RandomSuggest(seed)
        self.answers: dict[str, Any] = {}
        self.choices: dict[str, Any] = {}

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return self._record(name, (low, high), self._source.suggest_int(name, low, high))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._record(name, tuple(choices), self._source.suggest_categorical(name, choices))

    def _record(self, name: str, choices: Any, answer: Any) -> Any:
        assert name not in self.answers, "a decision was asked for twice"
        self.answers[name], self.choices[name] = answer, choices
        return answer


@given(architectures(EVERYTHING))
@settings(max_examples=30)
def test_what_a_space_draws_it_contains(architecture: Architecture) -> None:
    assert EVERYTHING.contains(architecture)


@pytest.mark.parametrize("space", [DEFAULT, EVERYTHING], ids=["default", "everything"])
def test_names_always_have_the_same_choices_and_replay_gives_the_same(space: Any) -> None:
    seen: dict[str, Any] = {}
    for seed in range(300):
        recorder = Recorder(seed)
        architecture = space.sample(recorder)
        for name, choices in recorder.choices.items():
            assert seen.setdefault(name, choices) == choices
        assert space.sample(FixedSuggest(recorder.answers)) == architecture


@pytest.mark.parametrize("stride", [1, 2])
def test_size_equals_brute_force(stride: int) -> None:
    space = parse_space(SMALL % stride).adapt(channels=1, classes=3)
    distinct = set(every(space.sample))
    assert space.size() == len(distinct)
    assert sum(1 for _ in every(space.sample)) > len(distinct)  # several decisions do lead to one architecture
    assert all(space.contains(architecture) for architecture in list(distinct)[:50])


def test_an_architecture_of_another_space_is_not_contained() -> None:
    space = parse_space(SMALL % 2).adapt(channels=1, classes=3)
    for foreign in (parse_space(SMALL % 1).adapt(channels=1, classes=3), space.adapt(channels=3, classes=3), DEFAULT):
        assert not space.contains(foreign.sample(RandomSuggest(3)))


def test_default_space_has_uib_and_fire_in_one_stage() -> None:
    drawn = [DEFAULT.sample(RandomSuggest(seed)) for seed in range(200)]
    kinds = {type(block) for architecture in drawn for block in architecture.blocks}
    assert {UIB, Fire} <= kinds
    assert any({UIB, Fire} <= {type(block) for block in architecture.blocks[-4:]} for architecture in drawn)
    assert DEFAULT.size() > 10**20


@given(st.sampled_from([8, 16, 28, 32, 64, 96, 224]), st.sampled_from([1, 3]), st.integers(2, 1000), st.integers(0, 99))
def test_default_space_adapts_to_the_data(resolution: int, channels: int, classes: int, seed: int) -> None:
    space = load_space("default").adapt(resolution=resolution, channels=channels, classes=classes)
    architecture = space.sample(RandomSuggest(seed))
    assert (architecture.resolution, architecture.channels, architecture.classes) == (resolution, channels, classes)
    assert architecture.shapes[-1].height >= 4


@pytest.mark.parametrize(("resolution", "halvings"), [(8, 1), (16, 2), (32, 3), (64, 4), (128, 5), (224, 5)])
def test_early_strides_are_dropped_for_small_images(resolution: int, halvings: int) -> None:
    strides = load_space("default").adapt(channels=3, classes=2, resolution=resolution).strides(resolution)
    assert strides.count(2) == halvings
    assert strides[:-1][::-1] == tuple(sorted(strides[:-1], reverse=True))  # the late ones stay (the last has none)


def test_fingerprint_changes_with_what_can_be_drawn_only() -> None:
    space = parse_space(SMALL % 2)
    assert parse_space((SMALL % 2) + "name: renamed\n").fingerprint == space.fingerprint
    assert parse_space(SMALL % 1).fingerprint != space.fingerprint
    assert space.adapt(channels=1, classes=2).fingerprint != space.fingerprint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("depth: [1, 2]", "depth: [2, 1]", "stages[0].depth: choices must be distinct and ascending, got [2, 1]"),
        ("depth: [1, 2]", "depths: [1, 2]", "stages[0]: unknown key 'depths'"),
        ("width: [8, 16]", "width: [8, many]", "stages[0].width: must be a whole number from 1"),
        ("stride: 2", "stride: 3", "stages[1].stride: must be 1 or 2, got 3"),
        ("uib:", "uob:", "stages[0].blocks: unknown key 'uob'"),
        ("expansion:", "expand:", "stages[0].blocks.uib: unknown key 'expand'"),
        ("expansion: [1, 1.2, 2]", "expansion: [0]", "stages[0].blocks.uib.expansion: must be above 0, got 0"),
        ("dw_mid: [0, 3]", "dw_mid: [0]", "stages[0].blocks.uib.dw_start: it or dw_mid needs a kernel above 0"),
        ("dw_mid: [0, 3]", "dw_mid: [4]", "stages[0].blocks.uib.dw_mid: must be 0, 3, 5 or 7, got 4"),
        ("bypass: [none, conv]", "bypass: identity", "stages[1].blocks.fire.bypass: identity needs a second choice"),
        ("width: 16", "width: 8", "stages[1].width: fire blocks need at least 16 channels, got 8"),
        ("kind: mobilenet", "kind: vgg", "head.kind: must be one of classic, mobilenet, nin, got 'vgg'"),
        ("kind: mobilenet", "kind: nin", "head.hidden: must be given for kind mobilenet and for no other"),
        ("dropout: 0.1", "dropout: 1", "head.dropout: must be a number in [0, 1), got 1"),
        ("resolution: 8", "resolution: [8, 1]", "resolution: choices must be distinct and ascending"),
        ("resolution: 8", "resolution: 1", "resolution: the strides multiply to 2, which exceeds 1 px"),
        ("format: 1", "format: 9", "format: must be 1, got 9"),
        ("stem:", "steam:", "space: unknown key 'steam'"),
    ],
)
def test_a_wrong_space_is_refused_by_the_name_of_its_key(old: str, new: str, message: str) -> None:
    text = SMALL % 2
    assert old in text
    with pytest.raises(SpaceError) as refused:
        parse_space(text.replace(old, new, 1))
    assert message in str(refused.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_configured_spaces_can_be_drawn_from(path: Path) -> None:
    space = load_space(str(path)).adapt(channels=3, classes=10)
    drawn = [space.sample(RandomSuggest(seed)) for seed in range(20)]
    assert all(space.contains(architecture) for architecture in drawn[:3])
    assert space.size() > 10**9
    assert f"--space experiments/configs/{path.name}" in path.read_text()  # it says how it is used


def test_attention_cannot_open_a_stage() -> None:
    with pytest.raises(SpaceError, match="needs a kind that can change the width"):
        parse_space("{format: 1, stages: [{depth: 1, width: 8, blocks: {mqa: {}}}]}")


def test_unknown_space_names_the_known_ones_and_files_name_themselves(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="must be a file or one of default"):
        load_space("nowhere")
    (tmp_path / "space.yaml").write_text("format: 1\nstages: []\n")
    with pytest.raises(SpaceError, match=r"space\.yaml: stages: must be a list of at least one stage"):
        load_space(str(tmp_path / "space.yaml"))


def test_auto_resolution_needs_data() -> None:
    with pytest.raises(SpaceError, match="adapt it to the data first"):
        load_space("default").sample(RandomSuggest(0))


def test_fixed_answers_outside_the_space_are_refused() -> None:
    recorder = Recorder(0)
    DEFAULT.sample(recorder)
    name = next(iter(recorder.answers))
    with pytest.raises(SpaceError, match="must be one of"):
        DEFAULT.sample(FixedSuggest({**recorder.answers, name: 99}))
    with pytest.raises(SpaceError, match="must be given"):
        DEFAULT.sample(FixedSuggest({}))
