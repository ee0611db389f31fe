"""Whatever is changed or crossed, the result is a network of the space."""

import random

from hypothesis import given
from hypothesis import strategies as st

from nas.sampling.decisions import Decisions
from nas.sampling.encoding import Encoder
from tests.nas.sampling.spaces import SPACE, predict

DECISIONS = Decisions.of(SPACE)
seeds = st.integers(0, 2**32)


@given(seeds, st.integers(1, 5))
def test_changed_networks_are_of_the_space(seed: int, changes: int) -> None:
    source = random.Random(seed)
    parent = DECISIONS.any(source)
    child = DECISIONS.mutated(parent.answers, source, changes=changes)
    assert SPACE.contains(child.architecture)
    assert DECISIONS.complete(child.answers, seed=1).architecture == child.architecture
    differing = [name for name, answer in parent.answers.items() if child.answers.get(name, answer) != answer]
    assert len(differing) <= changes


@given(seeds)
def test_crossed_networks_take_every_decision_from_a_parent(seed: int) -> None:
    source = random.Random(seed)
    one, other = DECISIONS.any(source), DECISIONS.any(source)
    child = DECISIONS.crossed(one.answers, other.answers, source)
    assert SPACE.contains(child.architecture)
    for name, answer in child.answers.items():
        parents = [parent.answers[name] for parent in (one, other) if name in parent.answers]
        assert not parents or answer in parents


@given(seeds)
def test_settled_decisions_stay(seed: int) -> None:
    source = random.Random(seed)
    pinned = Decisions(SPACE, DECISIONS.offers, {"stage1.width": 2, "stage2.block1.kind": "fire"})
    parent = DECISIONS.any(source)
    for drawn in (pinned.any(source), pinned.mutated(parent.answers, source, changes=4)):
        assert drawn.answers["stage1.width"] == 2
        assert drawn.answers["stage2.block1.kind"] == "fire"


@given(seeds)
def test_rows_have_one_length_and_tell_networks_apart(seed: int) -> None:
    encoder = Encoder(DECISIONS)
    source = random.Random(seed)
    one, other = DECISIONS.any(source), DECISIONS.any(source)
    first, second = (encoder.encode(x.architecture, x.answers, predict(x.architecture).ms) for x in (one, other))
    assert len(first) == len(second) == encoder.groups[-1].stop
    assert (first != second).any() == (one.answers != other.answers)
