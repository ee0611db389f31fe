"""Importance: what is dead counts for nothing, and the first-order change of the loss is one."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from nas.checkpoint import Checkpoint
from nas.importance import magnitude, most_important, taylor
from searchspace.architecture import Architecture
from searchspace.blocks import UIB, ClassicHead, Conv, MultiQueryAttention
from searchspace.width import widths
from tests.nas.test_trimming import BLOCKS, around, killed, lively
from tests.searchspace.strategies import architectures

pytestmark = pytest.mark.usefixtures("one_thread")


def batch(architecture: Architecture, images: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn((images, *architecture.input_shape), generator=generator)
    return pixels, torch.arange(images) % architecture.classes


@settings(max_examples=15)
@given(architectures())
def test_every_unit_of_every_width_is_told_of(architecture: Architecture) -> None:
    checkpoint = lively(architecture)
    for told in (magnitude(checkpoint), taylor(checkpoint, [batch(architecture, 2)])):
        assert {name: len(figures) for name, figures in told.items()} == {
            width.name: width.count for width in widths(architecture)
        }
        assert all(bool((figures >= 0).all() and figures.isfinite().all()) for figures in told.values())


@pytest.mark.parametrize("block", BLOCKS[:-1], ids=lambda block: type(block).__name__)
def test_the_dead_matter_least(block: object) -> None:
    architecture = around(block)  # type: ignore[arg-type]
    dying = {width.name: {1, width.count - 1} for width in widths(architecture) if width.count > 2}
    checkpoint = killed(lively(architecture), dying)
    for told in (magnitude(checkpoint), taylor(checkpoint, [batch(architecture)])):
        for name, units in dying.items():
            dead = told[name][sorted(units)]
            assert torch.equal(dead, torch.zeros_like(dead)), name


def test_taylor_is_the_change_of_the_loss() -> None:
    """For a gate on a normalised channel: the loss's derivative by that gate, at 1."""
    architecture = Architecture((Conv(cout=6), UIB(cout=6, hidden=9, residual=True)), ClassicHead(), 8, classes=3)
    checkpoint = lively(architecture)
    images, labels = batch(architecture)
    told = taylor(checkpoint, [(images, labels)])
    network = checkpoint.network().double()
    gates = {"blocks.0.conv": torch.ones(6), "blocks.1.project": torch.ones(6), "blocks.1.expand": torch.ones(9)}
    gates = {name: gate.double().requires_grad_() for name, gate in gates.items()}
    for name, gate in gates.items():
        network.get_submodule(name).register_forward_hook(lambda *call, gate=gate: call[2] * gate.view(-1, 1, 1))
    F.cross_entropy(network(images.double()), labels).backward()  # type: ignore[no-untyped-call]
    change = {name: gate.grad.float() for name, gate in gates.items() if gate.grad is not None}
    torch.testing.assert_close(told["blocks.1.hidden"], change["blocks.1.expand"].square(), rtol=1e-3, atol=1e-7)
    stream = (change["blocks.0.conv"] + change["blocks.1.project"]).square()
    torch.testing.assert_close(told["blocks.0.cout"], stream, rtol=1e-3, atol=1e-7)


def test_magnitude_is_of_the_deployed_filters() -> None:
    """Scaling weights before a normalisation changes nothing that is deployed."""
    architecture = Architecture((Conv(cout=6), Conv(cout=5)), ClassicHead(), 8, classes=3)
    checkpoint = lively(architecture)
    state = dict(checkpoint.state)
    scale = torch.tensor([1.0, 2, 3, 4, 5, 6]).view(-1, 1, 1, 1)
    state["blocks.0.conv.weight"] = state["blocks.0.conv.weight"] * scale
    state["blocks.0.conv.norm.running_var"] = state["blocks.0.conv.norm.running_var"] * scale.flatten() ** 2
    scaled = Checkpoint(architecture, state, (), checkpoint.data)
    torch.testing.assert_close(
        magnitude(checkpoint)["blocks.0.cout"], magnitude(scaled)["blocks.0.cout"], rtol=1e-3, atol=0
    )


def test_a_head_is_told_by_what_reads_it() -> None:
    block = MultiQueryAttention(heads=2, key_dim=3, value_dim=4)
    architecture = Architecture((Conv(cout=6), block), ClassicHead(), 8, classes=3)
    checkpoint = lively(architecture)
    columns = checkpoint.state["blocks.1.project.weight"].square().sum((0, 2, 3)).view(2, 4)
    torch.testing.assert_close(magnitude(checkpoint)["blocks.1.heads"], columns.sum(1))
    torch.testing.assert_close(magnitude(checkpoint)["blocks.1.value_dim"], columns.sum(0))


def test_the_most_important_stay_in_their_order() -> None:
    assert most_important(torch.tensor([1.0, 5.0, 3.0, 5.0, 0.0]), 3) == [1, 2, 3]
    assert most_important(torch.tensor([1.0, 1.0, 1.0]), 2) == [0, 1]
