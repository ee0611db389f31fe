"""Networks of every family are trimmed from start to end: the budget is met, the result reloads and its ONNX equals it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from latency.fake import MAC_NS, VALUE_NS
from nas.adaptation import netadapt
from nas.checkpoint import Checkpoint, load_checkpoint
from nas.data import Data, Split
from nas.deployment import compare, first_images, onnx_model, random_checkpoint
from nas.finishing import finish
from nas.recipe import Recipe
from nas.weights import import_weights
from searchspace.architecture import Architecture, lower_block, lower_head
from searchspace.blocks import (
    UIB,
    ClassicHead,
    Conv,
    Fire,
    FusedBottleneck,
    Head,
    MobileNetHead,
    MultiQueryAttention,
    NinHead,
    Pool,
    Separable,
)
from searchspace.width import widths
from tests.nas.family import DATA, FakeModel, Told, family, slow_ms
from tests.nas.learning import CLASSES, RESOLUTION
from tests.searchspace.fixtures.originals import ORIGINALS, architecture_of, state_of

PIXELS, BLOCKS = 32, 6  # of an imported network
BRIEF = Recipe(images=16, batch_size=16, lr=0.01)


def network(*blocks: object, head: Head) -> Architecture:
    return Architecture(blocks, head, resolution=RESOLUTION, channels=1, classes=len(CLASSES))  # type: ignore[arg-type]


KINDS = {
    "fire with bypasses": network(
        Conv(cout=16),
        Fire(squeeze=4, expand1x1=8, expand3x3=12, bypass="conv"),
        Pool(kernel=3, stride=2, padding=1),
        Fire(squeeze=6, expand1x1=8, expand3x3=12, bypass="identity"),
        head=NinHead(),
    ),
    "squeeze-excite": network(
        Conv(cout=8, activation="hard_swish"),
        UIB(cout=8, hidden=None, stride=2, se=4),
        UIB(cout=12, hidden=24, activation="hard_swish", se=8),
        UIB(cout=12, hidden=28, dw_mid=5, activation="hard_swish", se=8, residual=True),
        head=MobileNetHead(hidden=24, norm=False, activation="hard_swish"),
    ),
    "hybrid": network(
        Conv(cout=8),
        FusedBottleneck(cout=12, hidden=24, stride=2),
        UIB(cout=16, hidden=32, dw_start=3, dw_mid=3),
        MultiQueryAttention(heads=2, key_dim=8, value_dim=8, kv_stride=2),
        UIB(cout=16, hidden=24, dw_start=3, dw_mid=0, residual=True, layer_scale=1e-5),
        head=MobileNetHead(hidden=24),
    ),
    "separable": network(
        Conv(cout=8, stride=2), Separable(cout=16), Separable(cout=24), Separable(cout=24), head=ClassicHead()
    ),
}


@dataclass(frozen=True)
class Counting(FakeModel):
    """Knows about what a `SlowDevice` measures, from multiply-accumulates and numbers written; the device corrects it."""

    def predict(self, architecture: Architecture) -> Told:
        norm, shapes = architecture.norm, architecture.shapes
        ops = list(lower_head(architecture.head, shapes[-1], classes=architecture.classes, norm=norm))
        for block, shape in zip(architecture.blocks, shapes, strict=False):
            ops += lower_block(block, shape, norm)
        written = sum(op.shape.channels * op.shape.height * op.shape.width for op in ops)
        ms = self.share * (MAC_NS * sum(op.macs for op in ops) + VALUE_NS * written) / 1e3
        return Told(ms, 0.9 * ms, 1.1 * ms)


def model_of(start: Checkpoint) -> Counting:
    """A model that is right about the start, as one that was fitted to such networks would be."""
    return Counting(slow_ms(onnx_model(start)) / Counting().predict(start.architecture).ms)


def trim(folder: Path, start: Checkpoint, data: Data, *, ratio: float, reduction: str) -> None:
    trimming = family(
        folder,
        start=start,
        data=data,
        model=model_of(start),
        budget_ratio=ratio,
        reduction=reduction,
        short=BRIEF,
    )
    steps = netadapt(trimming)
    outcome = finish(trimming, steps, recipe=BRIEF)
    final = load_checkpoint(outcome.checkpoint)
    assert outcome.measured_ms is not None
    assert outcome.measured_ms <= ratio * steps[0].ms
    assert final.architecture.fingerprint == steps[-1].fingerprint != steps[0].fingerprint
    assert outcome.measured_ms == pytest.approx(slow_ms(onnx_model(final)), rel=1e-3)
    before, after = (sum(width.count for width in widths(one.architecture)) for one in (start, final))
    assert after < before
    compare(onnx_model(final, batch=None), final.network(), first_images(data.test, data))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_block(tmp_path: Path, kind: str) -> None:
    trim(tmp_path, random_checkpoint(KINDS[kind]), DATA, ratio=0.85, reduction="0.08")


def test_weights_of_another_library(tmp_path: Path) -> None:
    """The first blocks of timm's MobileNetV4, since the whole would take a minute."""
    original = ORIGINALS["timm-mobilenetv4_conv_small_050"]
    imported = import_weights(architecture_of(original), state_of(original)).checkpoint
    whole = imported.architecture
    first = dataclasses.replace(
        whole, blocks=whole.blocks[:BLOCKS], head=ClassicHead(), resolution=PIXELS, classes=len(CLASSES)
    )
    start = random_checkpoint(first)
    state = {
        name: imported.state[name] if name.startswith("blocks.") else tensor for name, tensor in start.state.items()
    }
    trim(tmp_path, dataclasses.replace(start, state=state), coloured(few=32), ratio=0.9, reduction="0.06")


def coloured(*, few: int) -> Data:
    """The usual images, larger and in three equal colours, the first few of each split."""

    def enlarged(split: Split) -> Split:
        images = split.images[:few].repeat_interleave(PIXELS // RESOLUTION, 2)
        images = images.repeat_interleave(PIXELS // RESOLUTION, 3).expand(-1, 3, -1, -1).contiguous()
        return Split(images, split.labels[:few])

    parts = {name: enlarged(getattr(DATA, name)) for name in ("train", "validation", "test")}
    counts = tuple(torch.bincount(parts["train"].labels).tolist())
    normal = {"mean": 3 * DATA.mean, "std": 3 * DATA.std}
    return dataclasses.replace(DATA, resolution=PIXELS, channels=3, class_counts=counts, **normal, **parts)  # type: ignore[arg-type]
