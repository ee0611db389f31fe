"""A small trained network, a pretended device that it runs on, and a latency model that knows that device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import onnx
import torch

from latency.fake import NETWORK_NS, NODE_NS, PROBE_NS, FakeDevice, true_ms
from latency.settings import RuntimeSettings
from latency.timing import Slice, Timing
from nas.checkpoint import Checkpoint
from nas.family import Family
from nas.recipe import Recipe
from nas.run import Run
from nas.steps import Settings
from nas.training import train
from searchspace.architecture import Architecture, lower
from searchspace.blocks import UIB, ClassicHead, Conv
from searchspace.onnx_graph import random_weights, to_onnx
from tests.nas.learning import CLASSES, RESOLUTION, shapes

DATA = shapes()
TINY = Architecture(
    (Conv(cout=8), UIB(cout=8, hidden=12, residual=True), Conv(cout=10, kernel=1)),
    ClassicHead(),
    resolution=RESOLUTION,
    channels=1,
    classes=len(CLASSES),
)
SHORT = Recipe(images=64, batch_size=16, lr=0.02)
RUNTIME = RuntimeSettings()


@dataclass(frozen=True)
class Told:
    """A prediction."""

    ms: float
    low_ms: float
    high_ms: float


class SlowDevice(FakeDevice):
    """A `FakeDevice` on which only a network's own work takes time: small networks differ as large ones do."""

    def measure(self, models: Sequence[bytes], **options: Any) -> list[Timing]:
        return [Timing((Slice((round(1e6 * slow_ms(model)),) * 3, PROBE_NS),) * 4) for model in models]


def slow_ms(model: bytes) -> float:
    """What a `SlowDevice` measures of an ONNX model."""
    layers = sum(node.op_type in ("Conv", "Gemm") for node in onnx.load_from_string(model).graph.node)
    return 1e3 * true_ms(model) - (NETWORK_NS + layers * NODE_NS) / 1e3


@dataclass(frozen=True)
class FakeModel:
    """Says `share` of what a `SlowDevice` measures."""

    share: float = 1.0

    def predict(self, architecture: Architecture) -> Told:
        ms = self.share * fake_ms(architecture)
        return Told(ms, 0.9 * ms, 1.1 * ms)


@lru_cache(maxsize=1 << 14)
def fake_ms(architecture: Architecture) -> float:
    """What a `SlowDevice` measures of an architecture."""
    graph = lower(architecture)
    return slow_ms(to_onnx(graph, random_weights(graph)))


@cache
def trained() -> Checkpoint:
    """`TINY`, trained well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    result = train(TINY, DATA, Recipe(epochs=12, batch_size=16, lr=0.1, flip=False))
    torch.set_num_threads(before)
    return result.checkpoint


class Events:
    """Remembers what was told."""

    def __init__(self, on_progress: Callable[[str], None] | None = None) -> None:
        self.notes: list[str] = []
        self.on_progress = on_progress

    def note(self, message: str) -> None:
        self.notes.append(message)

    def progress(self, what: str, done: int, total: int | None) -> None:
        if self.on_progress is not None:
            self.on_progress(f"{what} {done}")


def family(folder: Path, **changes: Any) -> Family:
    """A family in `folder`; `changes` are fields of it or of its settings."""
    fields = {name: changes.pop(name) for name in ("start", "device", "model", "events") if name in changes}
    wanted = {"budget_ratio": 0.9, "reduction": "0.1", "short": SHORT, **changes}
    defaults: dict[str, Any] = {
        "start": fields.get("start") or trained(),
        "device": SlowDevice(),
        "model": FakeModel(),
        "events": Events(),
    }
    return Family(
        run=Run(folder, "netadapt", {}), data=DATA, runtime=RUNTIME, settings=Settings(**wanted), **(defaults | fields)
    )
