"""Inherited weights are the relative's where the two networks have something in common, and always make a whole network."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.inheritance import fresh_state, inherit, likeness, match_blocks
from searchspace.network import Network
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space

SPACE = load_space("default").adapt(channels=3, classes=10, resolution=32)
seeds = st.integers(0, 10_000)


@given(seeds)
@settings(max_examples=5)
def test_a_network_inherits_all_of_its_twin(seed: int) -> None:
    architecture = SPACE.sample(RandomSuggest(seed))
    weights = fresh_state(architecture, seed=1)
    assert likeness(architecture, architecture) == 1
    inherited = inherit(fresh_state(architecture, seed=2), architecture, weights, architecture)
    assert all(torch.equal(inherited[name], weights[name]) for name in weights)


@given(seeds, seeds)
@settings(max_examples=8)
def test_relatives_share_what_both_have_and_the_rest_starts_at_random(one: int, other: int) -> None:
    child, relative = SPACE.sample(RandomSuggest(one)), SPACE.sample(RandomSuggest(other))
    start = fresh_state(child, seed=1)
    ones = {name: torch.ones_like(tensor) for name, tensor in fresh_state(relative, seed=2).items()}
    inherited = inherit(start, child, ones, relative)
    weights = [name for name in start if name.endswith(".weight") and start[name].ndim > 1]
    taken = sum(int((inherited[name] == 1).sum()) for name in weights)
    share = taken / sum(start[name].numel() for name in weights)
    assert 0 < share <= 1  # stem and head at least
    assert abs(share - likeness(child, relative)) < 1e-6
    for name in weights:
        kept = inherited[name] != 1
        assert torch.equal(inherited[name][kept], start[name][kept])
    Network(child).load_state_dict(inherited)


@given(seeds, seeds)
@settings(max_examples=20)
def test_blocks_are_matched_in_order_like_with_like(one: int, other: int) -> None:
    child, relative = SPACE.sample(RandomSuggest(one)), SPACE.sample(RandomSuggest(other))
    matched = match_blocks(child, relative)
    pairs = sorted(matched.items())
    assert [pair[1] for pair in pairs] == sorted({pair[1] for pair in pairs})
    for mine, theirs in pairs:
        assert type(child.blocks[mine]) is type(relative.blocks[theirs])
        assert child.shapes[mine + 1].height == relative.shapes[theirs + 1].height


def test_a_smaller_kernel_is_the_middle_of_a_larger_one() -> None:
    seen = 0
    for seed in range(40):
        child, relative = SPACE.sample(RandomSuggest(seed)), SPACE.sample(RandomSuggest(seed + 1))
        mine, theirs = fresh_state(child, seed=1), fresh_state(relative, seed=2)
        inherited = inherit(mine, child, theirs, relative)
        for at, of in match_blocks(child, relative).items():
            name, source = f"blocks.{at}.dw_mid.weight", f"blocks.{of}.dw_mid.weight"
            if name in mine and source in theirs and (mine[name].shape[-1], theirs[source].shape[-1]) == (3, 5):
                count = min(len(mine[name]), len(theirs[source]))
                assert torch.equal(inherited[name][:count], theirs[source][:count, :, 1:4, 1:4])
                seen += 1
    assert seen
