"""Statistics of normalisations after trimming: those of the narrow network, and of no other layer."""

from typing import Any

import pytest
import torch

from nas.checkpoint import Checkpoint
from nas.deployment import noise
from nas.normalisation import observed, renormalised
from nas.recipe import Recipe
from nas.slicing import Slicer
from nas.steps import Settings
from nas.trimming import input_means, trim, without_block
from searchspace.architecture import Architecture
from searchspace.blocks import UIB, Conv, Fire, MobileNetHead, MultiQueryAttention
from searchspace.width import widths
from tests.nas.family import DATA, TINY
from tests.nas.test_trimming import lively

MIXED = Architecture(
    (
        Conv(cout=10),
        UIB(cout=10, hidden=20, dw_start=3, dw_mid=5, se=5, residual=True),
        Fire(squeeze=4, expand1x1=3, expand3x3=7, bypass="identity"),
        MultiQueryAttention(heads=3, key_dim=4, value_dim=5),
        Conv(cout=9, kernel=1),
    ),
    MobileNetHead(hidden=12),
    12,
    classes=5,
)


def cut(checkpoint: Checkpoint, images: torch.Tensor, kept: dict[str, list[int]]) -> Checkpoint:
    means = input_means(checkpoint.network(), [images])
    return renormalised(
        trim(checkpoint, kept, means=means), trim(observed(checkpoint, images), kept, means=means), images
    )


def statistics(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: one for name, one in checkpoint.state.items() if "running" in name}


def assert_fits(narrow: Checkpoint, images: torch.Tensor) -> None:
    found = statistics(observed(narrow, images))
    for key, value in statistics(narrow).items():
        assert torch.allclose(value, found[key], rtol=0.03, atol=0.03), key  # training's variances are unbiased


@pytest.mark.parametrize("name", [width.name for width in widths(MIXED)])
def test_a_trimmed_network_has_the_statistics_it_computes(name: str) -> None:
    images = noise(MIXED, images=4, seed=0)  # whose statistics a lively network has
    [width] = [one for one in widths(MIXED) if one.name == name]
    assert_fits(cut(lively(MIXED), images, {name: list(range(0, width.count, 2))}), images)


def test_layers_that_no_cut_reaches_stay_as_they_are() -> None:
    images = noise(MIXED, images=8, seed=1)
    checkpoint = lively(MIXED)
    narrow = cut(checkpoint, images, {"blocks.4.cout": [0, 3, 4]})
    for key, value in statistics(narrow).items():
        if key.startswith("blocks."):
            before = checkpoint.state[key]
            before = before[[0, 3, 4]] if key.startswith("blocks.4.") else before
            assert torch.allclose(value, before, rtol=1e-4, atol=1e-5), key


def test_dead_channels_go_without_a_trace() -> None:
    images = noise(MIXED, images=8, seed=1)
    checkpoint = lively(MIXED)
    state: dict[str, Any] = dict(checkpoint.state)
    for layer in ("blocks.1.expand", "blocks.1.dw_mid"):
        for key in (f"{layer}.norm.weight", f"{layer}.norm.bias"):
            state[key] = state[key].clone()
            state[key][[2, 5]] = 0.0
    dead = Checkpoint(MIXED, state, (), checkpoint.data)
    narrow = cut(dead, images, {"blocks.1.hidden": [unit for unit in range(20) if unit not in (2, 5)]})
    with torch.inference_mode():
        wide, trimmed = dead.network().eval()(images), narrow.network().eval()(images)
    assert torch.allclose(wide, trimmed, atol=1e-4)


def test_a_dropped_block_leaves_its_mean_to_the_normalisations_after_it() -> None:
    images = noise(TINY, images=4, seed=0)
    wide = lively(TINY)
    assert_fits(renormalised(without_block(wide, 1), without_block(observed(wide, images), 1), images), images)


def test_a_slicer_makes_networks_that_fit() -> None:
    checkpoint = lively(TINY)
    slicer = Slicer.of(checkpoint, DATA, Settings(budget_ratio=0.5, short=Recipe(images=32)))
    narrow = slicer.cut({"blocks.1.hidden": 5}, None)
    plain = trim(checkpoint, {"blocks.1.hidden": [0, 1, 2, 3, 4]}, means=slicer.means)
    assert narrow.architecture == plain.architecture
    changed = {key for key, value in narrow.state.items() if not torch.equal(value, plain.state[key])}
    assert any("project.norm.running_var" in key for key in changed)
