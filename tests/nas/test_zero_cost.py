"""Scores without training: finite, repeatable, and they do not touch torch's random state."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.fidelity import ZERO_COSTS
from nas.inheritance import fresh_state
from nas.zero_cost import naswot, synflow, zero_cost_score
from searchspace.architecture import Architecture, lower
from searchspace.blocks import Conv
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space
from tests.nas.learning import shapes, small

DATA = shapes()
SPACE = load_space("default").adapt(channels=DATA.channels, classes=len(DATA.classes), resolution=DATA.resolution)


@given(st.integers(0, 1000))
@settings(max_examples=2, deadline=None)
def test_scores_are_finite_and_repeatable(seed: int) -> None:
    architecture = SPACE.sample(RandomSuggest(seed))
    for name in ZERO_COSTS:
        score, seconds = zero_cost_score(name, architecture, DATA)
        assert abs(score) < float("inf")
        assert seconds >= 0
        assert zero_cost_score(name, architecture, DATA)[0] == score
    assert zero_cost_score("params", architecture, DATA)[0] == lower(architecture).params


def test_torch_s_random_state_is_left_alone() -> None:
    before = torch.get_rng_state().clone()
    for name in ZERO_COSTS:
        zero_cost_score(name, small(dropout=0.1), DATA)
    assert torch.equal(torch.get_rng_state(), before)


def test_synflow_of_one_layer_is_its_summed_weights() -> None:
    """Output: the mean of (w · 1) over positions, times the classifier: every path's product, counted once a layer."""
    architecture = Architecture((Conv(cout=4, kernel=1),), resolution=4, channels=3, classes=2)
    state = fresh_state(architecture, seed=0)
    first = state["blocks.0.conv.weight"].double().abs().sum((1, 2, 3)) / (1 + 1e-5) ** 0.5
    output = (state["head.classifier.weight"].double().abs() @ first).sum()
    assert abs(synflow(architecture) - (2 * output).log().item()) < 1e-6


def test_images_that_switch_alike_have_no_naswot() -> None:
    architecture = Architecture((Conv(cout=8),), resolution=8, channels=3, classes=2)
    source = torch.Generator().manual_seed(0)
    different = torch.randn(6, 3, 8, 8, generator=source)
    assert naswot(architecture, different) > naswot(architecture, different[:1].repeat(6, 1, 1, 1) + 1e-3 * different)
