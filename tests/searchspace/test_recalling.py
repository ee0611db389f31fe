"""The way back from a network to its decisions."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from searchspace.recalling import recall
from searchspace.references import reference
from searchspace.sampling import FixedSuggest, RandomSuggest
from searchspace.space import load_space

SPACE = load_space("default").adapt(channels=3, classes=10, resolution=32)


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_recalled_decisions_give_the_network(seed: int) -> None:
    network = SPACE.sample(RandomSuggest(seed))
    answers = recall(SPACE, network)
    assert answers is not None
    assert SPACE.sample(FixedSuggest(answers)) == network


def test_networks_that_are_not_in_the_space_are_not_recalled() -> None:
    network = SPACE.sample(RandomSuggest(0))
    assert recall(SPACE, dataclasses.replace(network, resolution=40)) is None
    assert recall(SPACE, dataclasses.replace(network, classes=11)) is None
    assert recall(SPACE, reference("mobilenet_v2", width_multiplier=1.0)) is None
