"""What is measured for the record, and measuring it in pieces: every finished piece is in ``measurements.jsonl`` at once."""

import dataclasses
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from latency.device import Device
from latency.kernel import Kernel
from latency.kernel_check import kernel_text, node_text, weight_shapes
from latency.planning import kernels
from latency.settings import Effort, Precision, RuntimeSettings
from latency.stand_in import stand_in
from latency.timing import Timing, held_to_one_speed
from searchspace.architecture import Architecture, lower, lower_block
from searchspace.blocks import UIB, Block, Conv
from searchspace.graph import Graph, Norm, Shape
from searchspace.references import REFERENCES
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space

RESOLUTIONS = (64, 96, 128, 160, 192, 224)
FIT, HELD_OUT, TABLED, PROFILED = 100, 110, 14, 16
FIT_INT8, HELD_OUT_INT8 = 64, 64
VARIED = {"fp32": 240, "int8": 200}  # networks of `nas profile`
SCALINGS = ((0.35, 192), (0.6, 112), (0.85, 144), (1.0, 176))  # α and ρ of the references
OLDER_SCALINGS = ((0.5, 96), (0.75, 160), (1.0, 128), (1.0, 224))  # measured on the Xeon
OLDER_FIT = 200  # networks of the space that were fitted to there
TOO_SLOW = ("mobilenet_v4_conv_l", "mobilenet_v4_hybrid_m", "mobilenet_v4_hybrid_l")
WIDTHS = range(8, 129)
JOB = 12
EFFORT = Effort(limit_s=2.0)
PROFILE_RUNS = 30

BlockKey = tuple[Block, Shape, Norm | None]


@dataclass(frozen=True)
class Task:
    """One thing to measure: a network of some purpose, or (``block``) a block by itself."""

    purpose: str
    name: str
    architecture: Architecture | None = None
    block: BlockKey | None = None

    def model(self, precision: Precision) -> bytes:
        """What the device gets."""
        if self.architecture is not None:
            return stand_in(lower(self.architecture), precision)
        assert self.block is not None
        block, shape, norm = self.block
        graph = Graph(tuple(lower_block(block, shape, norm)))
        model = onnx.load_from_string(stand_in(graph, "fp32"))
        del model.graph.output[:]
        model.graph.output.append(
            helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, *graph.output.shape])
        )
        return bytes(model.SerializeToString())


def networks(purpose: str) -> list[Task]:
    """The networks of one purpose: ``fit``, ``held out``, ``reference``, ``staircase``."""
    match purpose:
        case "fit" | "held out":
            space, source = load_space("default"), random.Random(purpose)
            count = OLDER_FIT if purpose == "fit" else HELD_OUT
            drawn = [
                space.adapt(channels=3, classes=10, resolution=source.choice(RESOLUTIONS)).sample(
                    RandomSuggest(source.randrange(1 << 30))
                )
                for _ in range(count)
            ]
        case "reference":
            return [
                Task(purpose, f"{name} {scaled(alpha, pixels)}", dataclasses.replace(build(alpha), resolution=pixels))
                for name, build in REFERENCES.items()
                if name not in TOO_SLOW
                for alpha, pixels in (*SCALINGS, *OLDER_SCALINGS)
            ]
        case _:
            drawn = [staircase_network(width) for width in WIDTHS]
    return [Task(purpose, f"{purpose} {index}", one) for index, one in enumerate(drawn)]


def scaled(alpha: float, pixels: int) -> str:
    return f"α={alpha:g} {pixels} px"


def staircase_network(width: int) -> Architecture:
    """A network of which one layer has that width: the hidden channels of a bottleneck on a 28 × 28 map."""
    blocks = (Conv(cout=32, stride=2), UIB(cout=32, hidden=width, dw_mid=3), Conv(cout=64, stride=2))
    return Architecture(blocks, resolution=56, classes=10)


def block_keys(architecture: Architecture) -> list[BlockKey]:
    """Each block with the shape it meets."""
    shapes = architecture.shapes
    return [(block, shape, architecture.norm) for block, shape in zip(architecture.blocks, shapes, strict=False)]


def blocks_by_themselves() -> list[Task]:
    """Each different block of the first held-out networks."""
    tabled = [task.architecture for task in networks("held out")[:TABLED] if task.architecture is not None]
    keys = dict.fromkeys(key for architecture in tabled for key in block_keys(architecture))
    return [Task("block", block_name(key), block=key) for key in keys]


def block_name(key: BlockKey) -> str:
    return f"{key[0]} {tuple(key[1])} {key[2]}"


def measure(
    device: Device, path: Path, *, settings: RuntimeSettings, limit_s: float, tell: Callable[[str], None]
) -> None:
    """Measures what has not settled in the file yet, until everything was tried or the time is up."""
    done = settled(path)
    precision = settings.precision
    counts = {"held out": HELD_OUT, "fit": FIT} if precision == "fp32" else {"held out": HELD_OUT_INT8, "fit": FIT_INT8}
    mixed = [task for purpose, count in counts.items() for task in networks(purpose)[:count]]
    mixed += [task for task in networks("reference") if task.name.endswith(tuple(scaled(*one) for one in SCALINGS))]
    random.Random(1).shuffle(mixed)  # a partial record has a share of each, measured beside each other
    rest = [*networks("staircase"), *blocks_by_themselves()] if precision == "fp32" else []
    waiting = [task for task in (*mixed, *rest) if (task.purpose, task.name) not in done]
    looked_into = networks("fit")[:PROFILED] if precision == "fp32" else []
    profiles = [task for task in looked_into if ("profile", task.name) not in done]
    begin = time.monotonic()
    with device.reserve("measuring for the record"), path.open("a", encoding="utf-8") as file:
        while (waiting or profiles) and time.monotonic() - begin < limit_s:
            if waiting:
                job, waiting = waiting[:JOB], waiting[JOB:]
                effort = dataclasses.replace(EFFORT, quiet_ns=full_speed_ns(path))
                timings = device.measure([task.model(precision) for task in job], settings=settings, effort=effort)
                for task, timing in zip(job, timings, strict=True):
                    row = {"purpose": task.purpose, "name": task.name, "timing": timing.as_json()}
                    file.write(json.dumps(row) + "\n")
            else:
                task = profiles.pop(0)
                assert task.architecture is not None
                nodes = profile(device, task.architecture, settings=settings)
                file.write(json.dumps({"purpose": "profile", "name": task.name, "ms": nodes}) + "\n")
            file.flush()
            tell(f"{len(waiting)} measurements and {len(profiles)} profiles to go")


def settled(path: Path) -> set[tuple[str, str]]:
    """Purpose and name of what needs no more measuring: a slow phase that outlasted a job is told by the others."""
    rows = [row for row in read(path) if "timing" in row]
    timings = held_to_one_speed([Timing.from_json(row["timing"]) for row in rows])
    done = {(row["purpose"], row["name"]) for row, timing in zip(rows, timings, strict=True) if timing.stable}
    return done | {("profile", row["name"]) for row in read(path) if row["purpose"] == "profile"}


def full_speed_ns(path: Path) -> int | None:
    """The probe's nanoseconds at the machine's full speed, as far as what was measured tells."""
    timings = [Timing.from_json(row["timing"]) for row in read(path) if "timing" in row]
    return held_to_one_speed(timings)[0].quiet_ns if timings else None


def profile(device: Device, architecture: Architecture, *, settings: RuntimeSettings) -> list[float]:
    """Milliseconds of each kernel by the runtime's own profiler, in the order of the rules.

    The optimised model is run as it is, its nodes named by their position, so that each time finds its kernel.
    """
    graph = lower(architecture)
    block = device.describe().nchwc_block
    model = onnx.load_from_string(device.optimize(stand_in(graph, "fp32"), settings=settings))
    shapes = weight_shapes(model.graph)
    places: dict[str, list[str]] = defaultdict(list)
    for index, node in enumerate(model.graph.node):
        node.name = f"node{index}"
        places[node_text(node, shapes)].append(node.name)
    plain = dataclasses.replace(settings, graph_level="disabled")
    times = {one.name: one.ms for one in device.profile(model.SerializeToString(), settings=plain, runs=PROFILE_RUNS)}
    taken: Counter[str] = Counter()
    found = []
    for kernel in kernels(graph, nchwc_block=block):
        text = kernel_text(kernel, block)
        found.append(times.get(places[text][taken[text]], 0.0))
        taken[text] += 1
    return found


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows written so far; one that an interrupt cut off is passed over."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


@dataclass(frozen=True)
class Sample:
    """A measured network and the kernels it consists of."""

    task: Task
    timing: Timing
    kernels: tuple[Kernel, ...]

    @property
    def ms(self) -> float:
        return self.timing.low_ms

    @property
    def architecture(self) -> Architecture:
        assert self.task.architecture is not None
        return self.task.architecture
