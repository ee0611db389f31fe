"""Pruning by magnitude and weight sharing: what stays, what is equal, and that training keeps it so."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.compression.magnitude import LEVELS, Layer, Pruned, choose_densities, layers, mask, masks
from nas.compression.sharing import share
from nas.deployment import random_checkpoint
from nas.recipe import load_recipe
from nas.training import train
from tests.nas.compression.test_container import SMALL
from tests.nas.learning import CLASSES, RESOLUTION, shapes

SMALL_GREY = dataclasses.replace(SMALL, channels=1, resolution=RESOLUTION, classes=len(CLASSES))


@given(st.integers(1, 500), st.floats(0.001, 1.0), st.integers(0, 1000))
def test_the_largest_stay(count: int, density: float, seed: int) -> None:
    weights = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    kept = mask(weights, density)
    assert kept.sum() == max(1, round(density * count))
    if not kept.all():
        assert weights[kept].abs().min() >= weights[~kept].abs().max()


@given(
    st.lists(st.integers(256, 100_000), min_size=1, max_size=6),
    st.floats(0.03, 1.0),
    st.integers(0, 1000),
)
def test_densities_add_up_and_spare_the_sensitive(weights: list[int], density: float, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    found = tuple(Layer(f"layer{index}", False, count) for index, count in enumerate(weights))
    drops = {}
    for layer in found:
        slope = float(torch.rand((), generator=source))
        drops[layer.name] = {level: slope * (1 - level) for level in LEVELS}
    chosen = choose_densities(found, drops, density)
    kept = sum(chosen[layer.name] * layer.weights for layer in found)
    assert kept <= density * sum(weights) * (1 + 1e-6)
    assert kept >= 0.99 * density * sum(weights)
    for one in found:
        for other in found:
            if drops[one.name][0.5] > drops[other.name][0.5]:
                assert chosen[one.name] >= chosen[other.name] - 1e-9


def test_training_keeps_zeros_and_shared_values() -> None:
    data = shapes()
    start = random_checkpoint(SMALL_GREY)
    found = layers(start)
    assert found
    pruned = Pruned(masks(start, {layer.name: 0.4 for layer in found}))
    recipe = dataclasses.replace(load_recipe("short"), images=320)
    after = train(start, data, recipe, constraint=pruned).checkpoint
    for name, kept in pruned.masks.items():
        assert (after.state[name][~kept] == 0).all()
        assert not torch.equal(after.state[name], start.state[name] * kept)
    shared = share(after, found, conv_bits=3, linear_bits=2)
    tuned = train(after, data, recipe, constraint=shared).checkpoint
    for layer in found:
        codes = shared.codes[layer.name]
        values = tuned.state[layer.name]
        assert ((values == 0) | (codes >= 0)).all()
        assert int(codes.max()) < (3 if layer.linear else 7)
        for code in range(int(codes.max()) + 1):
            assert len(values[codes == code].unique()) == 1


def test_few_values_are_kept_as_they_are() -> None:
    start = random_checkpoint(SMALL)
    (layer, *_) = layers(start)
    weights = start.state[layer.name]
    weights.copy_(torch.where(weights > 0, 0.5, -0.25))
    network = start.network()
    share(start, (layer,), conv_bits=2, linear_bits=2).apply(network)
    assert torch.equal(dict(network.named_parameters())[layer.name], weights)


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(Exception, match="--conv-bits must be from 1 to 8"):
        share(random_checkpoint(SMALL), (), conv_bits=bits, linear_bits=4)


def test_sharing_tells_how_far_it_is() -> None:
    start = random_checkpoint(SMALL)
    told: list[int] = []
    found = layers(start)
    share(start, found, conv_bits=2, linear_bits=2, on_layer=told.append)
    assert told == list(range(len(found)))
