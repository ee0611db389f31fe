"""A device that only pretends: its latencies follow from a model's structure alone, so whatever uses a device can be tested."""

import contextlib
import hashlib
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from latency.device import Arrays, OnRestart, OnSlice, OpTime
from latency.errors import DeviceError
from latency.layout import nchwc_block, probe_model
from latency.provenance import Provenance
from latency.runner import session_options
from latency.settings import Effort, RuntimeSettings
from latency.timing import Slice, Timing

NETWORK_NS = 20_000.0  # of every run
NODE_NS = 1_500.0  # of every node that computes with weights
MAC_NS = 0.03  # of every multiply-accumulate
DEPTHWISE_MAC_NS = 0.1
VALUE_NS = 0.2  # of every number written
PROBE_NS = 20_000
DATE = "2026-01-01T00:00:00+00:00"
RUNS_IN_A_SLICE = 3
LARGE_BYTES = 256  # of a constant, beyond which it is a weight and none that a shape is computed from


class FakeDevice:
    """Gives every model the latency `true_ms`, with seeded noise on top that only ever adds time.

    Outputs and optimised graphs come from the ONNX Runtime in this process, so they are real.
    """

    def __init__(self, name: str = "fake", *, noise: float = 0.0, seed: int = 0) -> None:
        """A pretended device.

        Args:
            name: its name.
            noise: mean relative time that a slice takes too long; 0 for none.
            seed: of the noise.
        """
        self.name = name
        self.noise = noise
        self.seed = seed

    def describe(self) -> Provenance:
        return Provenance(
            machine="none",
            cpu="pretended",
            flags=(),
            cores=1,
            governor=None,
            max_frequency_khz=None,
            memory_bytes=None,
            system="none",
            runtime=onnxruntime.__version__,
            providers=("CPUExecutionProvider",),
            nchwc_block=_block(),
        )

    def reserve(self, purpose: str, *, on_wait: Callable[[str], None] | None = None) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def measure(
        self,
        models: Sequence[bytes],
        *,
        settings: RuntimeSettings,
        effort: Effort = Effort(),  # noqa: B008 - frozen
        on_slice: OnSlice | None = None,
        on_restart: OnRestart | None = None,
    ) -> list[Timing]:
        timings = []
        for index, model in enumerate(models):
            ns = sum(part for _, _, part in _node_ns(model)) + NETWORK_NS
            source = random.Random(f"{self.seed} {hashlib.sha256(model).hexdigest()}")
            slices = []
            for number in range(effort.processes * effort.slices):
                late = [source.expovariate(1.0) * self.noise for _ in range(RUNS_IN_A_SLICE)]
                slices.append(Slice(tuple(round(ns * (1 + part)) for part in late), PROBE_NS, number // effort.slices))
                if on_slice is not None:
                    on_slice(index, slices[-1])
            timings.append(Timing(tuple(slices), effort.tolerance, 0.0, date=DATE, cores=(0,)))
        return timings

    def memory(self, model: bytes, *, settings: RuntimeSettings) -> int | None:
        return len(model) + sum(round(ns) for _, _, ns in _node_ns(model))

    def profile(self, model: bytes, *, settings: RuntimeSettings, runs: int = 1) -> tuple[OpTime, ...]:
        return tuple(OpTime(name, op, ns / 1e6) for name, op, ns in _node_ns(model))

    def optimize(self, model: bytes, *, settings: RuntimeSettings) -> bytes:
        return _optimized(model, settings)

    def outputs(self, model: bytes, inputs: Arrays, *, settings: RuntimeSettings) -> dict[str, np.ndarray[Any, Any]]:
        with _as_device_error():
            session = onnxruntime.InferenceSession(
                model, session_options(settings.as_json()), providers=["CPUExecutionProvider"]
            )
            names = [output.name for output in session.get_outputs()]
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def true_ms(model: bytes) -> float:
    """The latency that a `FakeDevice` without noise measures for a model, in milliseconds."""
    return (sum(ns for _, _, ns in _node_ns(model)) + NETWORK_NS) / 1e6


@lru_cache(maxsize=64)  # it keeps the models
def _node_ns(model: bytes) -> tuple[tuple[str, str, float], ...]:
    """Name, type and nanoseconds of each node, from its shapes."""
    with _as_device_error():
        loaded = onnx.load_from_string(model)
        weights = {tensor.name: tuple(tensor.dims) for tensor in loaded.graph.initializer}
        graph = onnx.shape_inference.infer_shapes(_without_weights(loaded), strict_mode=True).graph
    values = {value.name: _numbers(value) for value in (*graph.value_info, *graph.output)}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]  # of an 8-bit model
    nodes = []
    for node in graph.node:
        written = values.get(node.output[0], 0)
        ns = VALUE_NS * written
        shape = next((weights[name] for name in node.input if len(weights.get(name, ())) > 1), None)
        if node.output[0] in weights:
            continue
        if shape is not None and node.op_type == "Conv":
            depthwise = shape[1] == 1 and shape[0] > 1
            ns += NODE_NS + (DEPTHWISE_MAC_NS if depthwise else MAC_NS) * written * shape[1] * shape[2] * shape[3]
        elif shape is not None:
            ns += NODE_NS + MAC_NS * shape[0] * shape[1]
        nodes.append((node.name or node.output[0], node.op_type, ns))
    return tuple(nodes)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large constants as inputs: their shapes are all that counts here, and to pass them on takes long."""
    constants = list(model.graph.initializer)
    del model.graph.initializer[:]
    for tensor in constants:
        if tensor.ByteSize() < LARGE_BYTES:
            model.graph.initializer.append(tensor)
        else:
            model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def _numbers(value: onnx.ValueInfoProto) -> int:
    count = 1
    for dim in value.type.tensor_type.shape.dim:
        count *= dim.dim_value or 1
    return count


@lru_cache(maxsize=1)
def _block() -> int:
    return nchwc_block(_optimized(probe_model(), RuntimeSettings()))


def _optimized(model: bytes, settings: RuntimeSettings) -> bytes:
    with tempfile.TemporaryDirectory(prefix="pocketnas-") as folder, _as_device_error():
        options = session_options(settings.as_json())
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return Path(folder, "optimized.onnx").read_bytes()


@contextlib.contextmanager
def _as_device_error() -> Iterator[None]:
    """Whatever the runtime has against a model is the caller's fault, not a defect."""
    try:
        yield
    except Exception as error:
        raise DeviceError(f"fake: {type(error).__name__}: {' '.join(str(error).split())}") from error
