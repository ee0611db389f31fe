"""A small trained network, a pretended device that it runs on, and a latency model that knows that device."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from latency.errors import DeviceError
from latency.fake import NETWORK_NS, NODE_NS, PROBE_NS, FakeDevice, true_ms
from latency.settings import RuntimeSettings
from latency.timing import Slice, Timing
from nas import adaptation
from nas.checkpoint import Checkpoint, load_checkpoint
from nas.family import Family
from nas.recipe import Recipe
from nas.run import Run
from nas.steps import Settings, Step
from nas.training import train
from nas.tuning import Job, Score
from searchspace.architecture import Architecture, lower
from searchspace.blocks import UIB, ClassicHead, Conv
from searchspace.onnx_graph import random_weights, to_onnx
from searchspace.width import widths
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
LONG = Recipe(images=160, batch_size=16, lr=0.02, flip=False)
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
    fields = {name: changes.pop(name) for name in ("start", "data", "device", "model", "events") if name in changes}
    wanted = {"budget_ratio": 0.9, "reduction": "0.1", "short": SHORT, **changes}
    defaults: dict[str, Any] = {
        "start": fields.get("start") or trained(),
        "data": DATA,
        "device": SlowDevice(),
        "model": FakeModel(),
        "events": Events(),
    }
    return Family(run=Run(folder, "netadapt", {}), runtime=RUNTIME, settings=Settings(**wanted), **(defaults | fields))


def same(one: Path, other: Path) -> bool:
    states = load_checkpoint(one).state, load_checkpoint(other).state
    return states[0].keys() == states[1].keys() and all(
        torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()
    )


def timeless(steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [{**vars(step), "seconds": 0} for step in steps]


class Lost(SlowDevice):
    """A device that is unplugged after some measurements."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def measure(self, *args: Any, **options: Any) -> Any:
        if self.left == 0:
            raise DeviceError(f"{self.name}: is not there any more")
        self.left -= 1
        return super().measure(*args, **options)


def oracle(architecture: Architecture) -> float:
    """An accuracy that every channel raises, each in its own measure."""
    weights = {"hidden": 3.0, "cout": 5.0}
    total = sum(weights[width.fields[-1].rsplit(".", 1)[1]] * width.count**0.5 for width in widths(architecture))
    return total / 100


def use_oracle(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Fine-tuning changes nothing and accuracy is the oracle's; what was to be fine-tuned is listed."""
    seen: list[Job] = []

    class Asked:
        images = 0

        def run(self, jobs: Sequence[Job], *, on_done: Callable[[int], None]) -> list[Score | None]:
            seen.extend(jobs)
            for job in jobs:
                shutil.copyfile(job.start, job.result)
            return [Score(oracle(load_checkpoint(job.start).architecture), 1.0) for job in jobs]

    @contextmanager
    def asked(data: object, *, workers: int) -> Iterator[Asked]:
        yield Asked()

    monkeypatch.setattr(adaptation, "open_tuner", asked)
    return seen
