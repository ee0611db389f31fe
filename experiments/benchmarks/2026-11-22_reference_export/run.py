"""Our ONNX export of each published network against torch's own exporters, and MQA against MHSA, on ONNX Runtime, one thread.

The files of one network are measured in turns, in several processes, so that a change of the machine's mood meets all of them.

    python experiments/benchmarks/2026-11-22_reference_export/run.py [NAME …]

With the package onnxscript installed, torch's newer exporter is measured too.
"""

import importlib.util
import io
import json
import os
import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from latency.settings import Effort
from latency.target import load_target
from latency.timing import Slice, Timing
from searchspace.architecture import Architecture, lower
from searchspace.blocks import ClassicHead, Conv, MultiQueryAttention
from searchspace.graph import LayerScale
from searchspace.network import Network
from searchspace.onnx_graph import fold, to_onnx
from searchspace.references import REFERENCES, reference

HERE = Path(__file__).parent
EFFORT = Effort(processes=4, slices=8, tolerance=0.005, limit_s=6.0)
TARGET = load_target("host")
DEVICE = TARGET.open()


def main() -> None:
    names = sys.argv[1:] or list(REFERENCES)
    records = [about()]
    for name in names:
        records.append(compare_exports(name))
        print(json.dumps(records[-1]), flush=True)
    if not sys.argv[1:]:
        for case in attention_cases():
            records.append(compare_attention(*case))
            print(json.dumps(records[-1]), flush=True)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (HERE / "result.jsonl").write_text(lines)
        print(table(records))


def table(records: list[dict[str, Any]]) -> str:
    """The records for README.md."""
    lines = ["| network | ours, ms | torch's, ms | ratio (95 %) |", "| --- | --- | --- | --- |"]
    for record in records:
        if "network" in record:
            ratio = record["ratio"]["torchscript"]
            times = f"{record['ms']['ours']:.3f} | {record['ms']['torchscript']:.3f}"
            lines.append(
                f"| {record['network']} | {times} | {ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f}) |"
            )
    lines += ["", "| attention | MQA adds, ms | MHSA adds, ms | share |", "| --- | --- | --- | --- |"]
    for record in records:
        if "attention" in record:
            case, added = record["attention"], record["added_ms"]
            where = f"{case['channels']}, {case['side']}², kv stride {case['kv_stride']}"
            lines.append(f"| {where} | {added['mqa']:.3f} | {added['mhsa']:.3f} | {record['share']:.2f} |")
    return "\n".join(lines)


def about() -> dict[str, Any]:
    return {
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": TARGET.settings.threads,
        "load": os.getloadavg()[0],
    }


def compare_exports(name: str) -> dict[str, Any]:
    """Milliseconds of ours and of torch's files, their ratio, and how far the outputs are apart."""
    architecture = reference(name)
    network = lively_network(architecture)
    started = time.perf_counter()
    files = {"ours": ours(network)}
    seconds = {"ours": time.perf_counter() - started}
    exporters = {"torchscript": False, **({"dynamo": True} if importlib.util.find_spec("onnxscript") else {})}
    for exporter, dynamo in exporters.items():
        started = time.perf_counter()
        files[exporter] = torchs(network, dynamo=dynamo)
        seconds[exporter] = time.perf_counter() - started
    outputs = {key: run(model, architecture) for key, model in files.items()}
    timings = dict(
        zip(files, DEVICE.measure(list(files.values()), settings=TARGET.settings, effort=EFFORT), strict=True)
    )
    scale = float(np.abs(outputs["ours"]).max())
    return {
        "network": name,
        "resolution": architecture.resolution,
        "macs": lower(architecture).macs,
        "ms": {key: round(timing.low_ms, 4) for key, timing in timings.items()},
        "ratio": {key: paired_ratio(timings["ours"], timings[key]) for key in exporters},
        "stable": {key: timing.stable for key, timing in timings.items()},
        "difference": {key: float(np.abs(outputs[key] - outputs["ours"]).max()) / scale for key in exporters},
        "export_seconds": {key: round(value, 3) for key, value in seconds.items()},
        "load": os.getloadavg()[0],
    }


def attention_cases() -> list[tuple[int, int, int]]:
    """(channels, side, kv stride) of Hybrid-M's two kinds of attention, and the first without its stride."""
    return [(160, 16, 2), (160, 16, 1), (256, 8, 1)]


def compare_attention(channels: int, side: int, kv_stride: int) -> dict[str, Any]:
    """What a block of MQA and one of MHSA add to a network of one convolution."""
    conv = Conv(cout=channels, kernel=1)
    blocks = {
        kind: MultiQueryAttention(heads=4, key_dim=64, value_dim=64, kv_stride=kv_stride, shared=kind == "mqa")
        for kind in ("mqa", "mhsa")
    }
    networks = {"nothing": (conv,), **{kind: (conv, block) for kind, block in blocks.items()}}
    architectures = [
        Architecture(parts, ClassicHead(), resolution=side, channels=channels, classes=10)
        for parts in networks.values()
    ]
    models = [ours(lively_network(architecture)) for architecture in architectures]
    timings = dict(zip(networks, DEVICE.measure(models, settings=TARGET.settings, effort=EFFORT), strict=True))
    added = {kind: timings[kind].low_ms - timings["nothing"].low_ms for kind in blocks}
    return {
        "attention": {"channels": channels, "side": side, "kv_stride": kv_stride, "heads": 4, "dimension": 64},
        "added_ms": {kind: round(ms, 4) for kind, ms in added.items()},
        "share": round(added["mqa"] / added["mhsa"], 4),
        "stable": {key: timing.stable for key, timing in timings.items()},
        "params": {
            kind: lower(architecture).params for kind, architecture in zip(networks, architectures, strict=True)
        },
        "load": os.getloadavg()[0],
    }


def paired_ratio(ours: Timing, theirs: Timing) -> dict[str, float]:
    """Median of the ratios of slices that were taken beside each other, each by its fastest run, with a 95 % interval."""
    pairs = [
        (fastest(own), fastest(other))
        for process in range(EFFORT.processes)
        for own, other in zip(of(ours, process), of(theirs, process), strict=False)
    ]
    ratios = np.array([own / other for own, other in pairs])
    resampled = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    return {"median": round(float(np.median(ratios)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def of(timing: Timing, process: int) -> list[Slice]:
    return [part for part in timing.slices if part.process == process]


def fastest(part: Slice) -> int:
    return min(part.whole_ns or part.ns)


def lively_network(architecture: Architecture) -> Network:
    """A network in use; layer scales are not tiny, so that attention shows in the outputs."""
    torch.manual_seed(0)
    network = Network(architecture).eval()
    scales = {op.name for op in lower(architecture) if isinstance(op, LayerScale)}
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.removesuffix(".weight") in scales:
                tensor.fill_(0.3)
    return network


def ours(network: Network) -> bytes:
    lowered = lower(network.architecture)
    return to_onnx(lowered, fold(lowered, {name: tensor.numpy() for name, tensor in network.state_dict().items()}))


def torchs(network: Network, *, dynamo: bool) -> bytes:
    buffer = io.BytesIO()
    image = torch.zeros(1, *network.architecture.input_shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter says on every call that it will go
        if dynamo:
            program = torch.onnx.export(network, (image,), dynamo=True, verbose=False, opset_version=20)
            program.save(buffer)
        else:
            torch.onnx.export(network, (image,), buffer, dynamo=False, opset_version=20)
    return buffer.getvalue()


def run(model: bytes, architecture: Architecture) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, *architecture.input_shape)).astype(np.float32)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])


if __name__ == "__main__":
    main()
