"""What a compression is asked for is judged before it begins."""

import dataclasses

import pytest

from nas.compression.squeezing import Settings, compressible
from nas.deployment import random_checkpoint
from nas.errors import CompressionError
from nas.recipe import Recipe
from searchspace.architecture import Architecture
from searchspace.blocks import Conv
from tests.nas.compression.test_container import SMALL

SETTINGS = Settings(retrain=Recipe(epochs=1), tune=Recipe(epochs=1))


def test_what_cannot_be_done_is_said() -> None:
    start = random_checkpoint(SMALL)
    found = {layer.name.removesuffix(".weight"): layer.weights for layer in compressible(start, SETTINGS)}
    assert len(found) > 2
    largest = max(found, key=lambda name: found[name])
    for densities, density, complaint in (
        ({"nowhere": 0.5}, 0.5, f"got 'nowhere'; known: .*{largest}"),
        ({largest: 1.0}, 0.01, "--density 0.01 cannot be met"),
        ({largest: 0.01}, 0.99, "--density 0.99 cannot be met"),
    ):
        with pytest.raises(CompressionError, match=complaint):
            compressible(start, dataclasses.replace(SETTINGS, layer_densities=densities, density=density))
    everything = dataclasses.replace(SETTINGS, layer_densities=dict.fromkeys(found, 1.0), density=0.01)
    assert len(compressible(start, everything)) == len(found)
    tiny = random_checkpoint(Architecture((Conv(cout=8),), resolution=8, classes=2))
    with pytest.raises(CompressionError, match="nothing to compress"):
        compressible(tiny, SETTINGS)
