"""Trimming: what is dead can be removed without a trace, and what is removed leaves its mean behind."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas.checkpoint import Checkpoint, DataRecord
from nas.deployment import compare, noise, onnx_model
from nas.trimming import input_means, trim, without_block
from searchspace import graph
from searchspace.architecture import Architecture, lower
from searchspace.blocks import (
    UIB,
    Block,
    ClassicHead,
    Conv,
    Fire,
    FusedBottleneck,
    MobileNetHead,
    MultiQueryAttention,
    NinHead,
    Pool,
    Separable,
)
from searchspace.network import Network
from searchspace.references import REFERENCES, reference
from searchspace.width import droppable, widths
from tests.searchspace.strategies import architectures

pytestmark = pytest.mark.usefixtures("one_thread")


BLOCKS: list[Block] = [
    Conv(cout=11),
    Separable(cout=11, activation="hard_swish"),
    UIB(cout=10, hidden=17, dw_start=3, dw_mid=5, se=5, residual=True),
    UIB(cout=10, hidden=None, dw_mid=3, residual=True),
    UIB(cout=10, hidden=20, dw_start=5, dw_mid=0, residual=True, layer_scale=0.1),
    FusedBottleneck(cout=10, hidden=15, se=4, residual=True),
    Fire(squeeze=4, expand1x1=3, expand3x3=7, bypass="identity"),
    Fire(squeeze=4, expand1x1=3, expand3x3=8, bypass="conv"),
    MultiQueryAttention(heads=3, key_dim=4, value_dim=5, kv_stride=2),
    MultiQueryAttention(heads=3, key_dim=4, value_dim=5, shared=False, residual=False),
    Pool(function="avg", padding=1),
]


def around(*blocks: Block, norm: bool = True) -> Architecture:
    norms = {} if norm else {"norm": None}
    ends = Conv(cout=10), Conv(cout=9, kernel=1)
    return Architecture((ends[0], *blocks, ends[1]), MobileNetHead(hidden=12), 12, classes=5, **norms)  # type: ignore[arg-type]


def lively(architecture: Architecture, *, seed: int = 0) -> Checkpoint:
    """Random weights and biases, normalisations that fit them."""
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(seed)
        network = Network(architecture)
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        network.train()(noise(architecture, images=4, seed=seed))
    record = DataRecord("none", "", (0.5,) * architecture.channels, (0.25,) * architecture.channels)
    return Checkpoint(architecture, network.state_dict(), (), record)


def killed(checkpoint: Checkpoint, dying: dict[str, set[int]]) -> Checkpoint:
    """The same network with the given units of widths giving 0, wherever they are made."""
    state = {name: tensor.clone() for name, tensor in checkpoint.state.items()}
    lowered = lower(checkpoint.architecture)
    dead = [torch.zeros(op.shape.channels, dtype=torch.bool) for op in lowered.ops]
    known = {width.name: width for width in widths(checkpoint.architecture)}
    units = {
        op.name: {
            channel
            for name, gone in dying.items()
            for place in known[name].places
            if place.op == op.name
            for unit in gone
            for channel in place.units[unit]
        }
        for op in lowered.ops
    }
    zeroed = {  # a squeeze-excite's factor would make a constant vary; attention's projections cannot take one in
        source
        for op in lowered.ops
        if isinstance(op, graph.Scale) or (isinstance(op, graph.Conv) and not op.bias and not op.norm)
        for source in upstream(lowered, op)
    }
    for index, op in enumerate(lowered.ops):
        if isinstance(op, graph.Concat):
            dead[index] = torch.cat([dead[source] for source in op.inputs])
        elif isinstance(op, graph.Conv | graph.Linear | graph.Attention) and not (
            isinstance(op, graph.Conv) and op.depthwise
        ):
            dead[index][list(units[op.name])] = True
            if op.inputs and isinstance(lowered.ops[op.inputs[0]], graph.Attention):  # a dead head is one nobody reads
                state[f"{op.name}.weight"][:, dead[op.inputs[0]]] = 0
            if f"{op.name}.weight" in state:
                silence(state, op.name, dead[index])
        elif op.inputs:
            dead[index] = dead[op.inputs[0]]
            if isinstance(op, graph.Normalize):
                silence(state, op.name, dead[index], weight=False)
            if index in zeroed:
                silence(state, op.name, dead[index], weight=False)
    return Checkpoint(checkpoint.architecture, state, (), checkpoint.data)


def upstream(lowered: graph.Graph, op: graph.Op) -> list[int]:
    """The ops on the way to an op's first input, up to the last that makes channels."""
    found, index = [], op.inputs[0]
    while isinstance(lowered.ops[index], graph.Activation) or getattr(lowered.ops[index], "depthwise", False):
        found.append(index)
        index = lowered.ops[index].inputs[0]
    return found


def silence(state: dict[str, Tensor], name: str, dead: Tensor, *, weight: bool = True) -> None:
    vectors = [f"{name}.bias", f"{name}.running_mean", f"{name}.norm.bias", f"{name}.norm.running_mean"]
    for key in vectors + ([f"{name}.weight"] if weight else []):
        if key in state:
            state[key][dead] = 0


def logits(checkpoint: Checkpoint, images: Tensor) -> Tensor:
    """In double precision: deep networks of random weights amplify what float32 rounds off."""
    with torch.inference_mode():
        return checkpoint.network().double()(images.double())


def check_trimming_dead(checkpoint: Checkpoint, dying: dict[str, set[int]]) -> None:
    images = noise(checkpoint.architecture, images=3)
    dead = killed(checkpoint, dying)
    counts = {width.name: width.count for width in widths(checkpoint.architecture)}
    kept = {name: set(range(counts[name])) - gone for name, gone in dying.items()}
    narrow = trim(dead, kept, means=input_means(dead.network(), [images]))
    wanted, got = logits(dead, images), logits(narrow, images)
    scale = max(1.0, float(wanted.abs().max()))
    assert float((wanted - got).abs().max()) <= 1e-5 * scale
    assert {width.fields: width.count for width in widths(narrow.architecture)} == {
        width.fields: len(kept[width.name]) if width.name in kept else width.count
        for width in widths(checkpoint.architecture)
    }


@pytest.mark.parametrize("norm", [True, False], ids=["normalised", "plain"])
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_trimming_the_dead_changes_nothing(block: Block, norm: bool) -> None:
    architecture = around(block, norm=norm)
    checkpoint = lively(architecture)
    found = widths(architecture)
    for width in found:
        check_trimming_dead(checkpoint, {width.name: set(range(0, width.count - 1, 2))})
    check_trimming_dead(checkpoint, {width.name: set(range(1, width.count, 2)) for width in found})


@settings(max_examples=25)
@given(architectures(), st.data())
def test_over_the_sampled_space(architecture: Architecture, data: st.DataObject) -> None:
    found = widths(architecture)
    chosen = data.draw(st.lists(st.sampled_from(found), min_size=1, unique_by=lambda width: width.name))
    dying = {
        width.name: data.draw(st.sets(st.integers(0, width.count - 1), max_size=width.count - 1)) for width in chosen
    }
    check_trimming_dead(lively(architecture), dying)


@pytest.mark.parametrize("name", REFERENCES)
def test_over_the_references(name: str) -> None:
    architecture = reference(name, width_multiplier=0.25, resolution=64, classes=10)
    dying = {width.name: {0, width.count // 2} - {width.count - 1} for width in widths(architecture)}
    check_trimming_dead(lively(architecture), dying)


@pytest.mark.parametrize(
    "block",
    [
        Conv(cout=11, kernel=1),
        UIB(cout=10, hidden=17, dw_mid=0, residual=True),
        UIB(cout=12, hidden=17, dw_start=3, dw_mid=0),
        Fire(squeeze=4, expand1x1=3, expand3x3=7),
        Separable(cout=11, kernel=1),
    ],
)
def test_a_constant_goes_into_what_reads_it(block: Block) -> None:
    """The channel's weights are 0, its bias is not, and only windows of one pixel read it."""
    architecture = Architecture((Conv(cout=10), block, Conv(cout=9, kernel=1)), ClassicHead(), 12, classes=5)
    checkpoint = lively(architecture)
    images = noise(architecture, images=3)
    for width in widths(architecture):
        if width.name.endswith("squeeze") or (width.name == "blocks.0.cout" and block.kind in ("uib",)):
            continue  # read by windows that reach into the padding
        state = {name: tensor.clone() for name, tensor in checkpoint.state.items()}
        for place in width.places:
            for unit in (0, 2):
                state[f"{place.op}.weight"][list(place.units[unit])] = 0
        dead = Checkpoint(architecture, state, (), checkpoint.data)
        kept = {width.name: set(range(width.count)) - {0, 2}}
        narrow = trim(dead, kept, means=input_means(dead.network(), [images]))
        torch.testing.assert_close(logits(narrow, images), logits(dead, images), rtol=1e-4, atol=1e-5)
        trainable = {name for name, _ in narrow.network().named_parameters()}
        unchanged = [name for name in trainable if state[name].shape == narrow.state[name].shape]
        for name in unchanged:
            if "classifier" not in name:
                assert torch.equal(state[name], narrow.state[name]), name


def test_at_the_padding_the_mean_over_the_map_is_kept() -> None:
    """A constant read through a padded window is replaced by what it gave on average."""
    architecture = Architecture((Conv(cout=6), Conv(cout=5)), NinHead(activation=None), 12, classes=3)
    checkpoint = lively(architecture)
    state = dict(checkpoint.state)
    state["blocks.0.conv.weight"] = state["blocks.0.conv.weight"].clone()
    state["blocks.0.conv.weight"][2] = 0
    state["blocks.0.conv.norm.bias"] = torch.full((6,), 2.0)
    dead = Checkpoint(architecture, state, (), checkpoint.data)
    images = noise(architecture, images=3)
    narrow = trim(dead, {"blocks.0.cout": {0, 1, 3, 4, 5}}, means=input_means(dead.network(), [images]))

    def before_relu(one: Checkpoint) -> Tensor:
        seen: list[Tensor] = []
        network = one.network()
        network.get_submodule("blocks.1.conv").register_forward_hook(lambda *call: seen.append(call[2].clone()))
        with torch.inference_mode():
            network(images)
        return seen[0]

    wide, slim = before_relu(dead), before_relu(narrow)
    torch.testing.assert_close(wide.mean((0, 2, 3)), slim.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    difference = wide - slim
    inside = difference[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(inside, inside[:1, :, :1, :1].expand_as(inside), rtol=1e-3, atol=1e-3)


def test_means_are_those_of_what_is_read() -> None:
    architecture = around(UIB(cout=10, hidden=17, residual=True))
    network = Network(architecture).eval()
    images = noise(architecture, images=4)
    means = input_means(network, [images[:1], images[1:]])
    torch.testing.assert_close(means["blocks.0.conv"], images.double().mean((0, 2, 3)))
    assert means["head.classifier"].shape == (12,)


@given(architectures())
@settings(max_examples=15)
def test_a_block_that_adds_nothing_can_be_dropped(architecture: Architecture) -> None:
    checkpoint = lively(architecture)
    images = noise(architecture, images=2)
    for index in droppable(architecture):
        state = {name: tensor.clone() for name, tensor in checkpoint.state.items()}
        for name in ("project", "expand1x1", "expand3x3"):
            silence(state, f"blocks.{index}.{name}", torch.tensor(True))
        idle = Checkpoint(architecture, state, (), checkpoint.data)
        torch.testing.assert_close(logits(without_block(idle, index), images), logits(idle, images))


@pytest.mark.parametrize("norm", [True, False], ids=["normalised", "plain"])
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_a_trimmed_network_equals_its_onnx_and_trains(block: Block, norm: bool) -> None:
    architecture = around(block, norm=norm)
    checkpoint = lively(architecture)
    images = noise(architecture, images=4)
    kept = {width.name: range(width.count - width.count // 3) for width in widths(architecture)}
    narrow = trim(checkpoint, kept, means=input_means(checkpoint.network(), [images]))
    assert lower(narrow.architecture).params < lower(architecture).params
    largest = float(logits(narrow, images).abs().max())
    assert compare(onnx_model(narrow, batch=4), narrow.network(), images) <= 1e-5 * max(1.0, largest)
    network, labels = narrow.network().train(), torch.arange(4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
