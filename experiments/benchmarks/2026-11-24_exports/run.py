"""Every format beside the checkpoint: references and 20 sampled networks; 8 bits on trained ones, timed beside float32."""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.record import write_record
from latency.comparison import compare
from latency.settings import Effort
from latency.target import load_target
from nas.checkpoint import load_checkpoint
from nas.data import Data, load_data
from nas.deployment import random_checkpoint
from nas.errors import ExportError
from nas.evaluation import as_trained
from nas.shipping.formats import Wish, export
from searchspace.architecture import Architecture, lower
from searchspace.references import REFERENCES, reference
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space

HERE = Path(__file__).parent
SIDE = 96  # pixels of the references' images
SAMPLED = 20
EFFORT = Effort(processes=3, slices=12, limit_s=15.0)
WISHES = {
    "onnx": Wish(format="onnx"),
    "onnx, any batch, from pixels": Wish(format="onnx", batch=None, preprocessing=True),
    "ort": Wish(format="ort"),
    "torch": Wish(format="torch"),
    "pte": Wish(format="pte"),
    "tflite": Wish(format="tflite"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("float", "int8", "time"), help="time needs the machine for itself")
    parser.add_argument("--data", default="cifar10", help="CIFAR-10, for float and int8")
    parser.add_argument("--trained", nargs="*", type=Path, default=[], help="checkpoints trained on it, for int8")
    parser.add_argument("--work", type=Path, default=Path("exports"), help="where int8 leaves its files for time")
    parser.add_argument("--formats", nargs="*", default=["onnx", "onnx, any batch, from pixels", "ort", "torch"])
    arguments = parser.parse_args()
    match arguments.part:
        case "float":
            lines = _untrained(arguments.data, {name: WISHES[name] for name in arguments.formats})
        case "int8":
            lines = _trained(arguments.data, arguments.trained, arguments.work)
        case _:
            lines = _timed(arguments.work)
    found = []
    for line in lines:
        print(json.dumps(line), flush=True)
        found.append(line)
    name = "phone" if {"pte", "tflite"} & set(arguments.formats) else arguments.part
    write_record(HERE / f"{name}.jsonl", found)


def _networks() -> Iterator[tuple[str, Architecture]]:
    for name in REFERENCES:
        yield name, reference(name, resolution=SIDE, classes=10)
    source = RandomSuggest(0)
    space = load_space("default").adapt(channels=3, classes=10, resolution=32)
    for index in range(SAMPLED):
        yield f"sampled {index}", space.sample(source)


def _untrained(source: str, wishes: dict[str, Wish]) -> Iterator[dict[str, Any]]:
    images = {side: load_data(source, resolution=side, limit=400) for side in (32, SIDE)}
    for name, architecture in _networks():
        checkpoint = random_checkpoint(architecture)
        data = dataclasses.replace(images[architecture.resolution], mean=checkpoint.data.mean, std=checkpoint.data.std)
        for what, wish in wishes.items():
            with tempfile.TemporaryDirectory() as folder:
                try:
                    report = export(checkpoint, Path(folder) / "network", wish, data=data)
                except ExportError as error:
                    yield {"network": name, "what": what, "error": str(error)}
                    continue
            yield {
                "network": name,
                "what": what,
                "fingerprint": architecture.fingerprint,
                **{key: report[key] for key in ("bytes", "max_abs_diff", "compared_on")},
            }


def _trained(source: str, checkpoints: list[Path], work: Path) -> Iterator[dict[str, Any]]:
    """8 bits: what it costs, on validation (where agreement is judged) and on test."""
    for path in checkpoints:
        checkpoint = load_checkpoint(path)
        data = _as_trained(source, checkpoint)
        name = checkpoint.architecture.name or checkpoint.architecture.fingerprint
        plain = export(checkpoint, work / f"{name}.onnx", Wish(format="onnx"))
        report = export(checkpoint, work / f"{name}-int8.onnx", Wish(format="onnx-int8"), data=data)
        yield {
            "network": name,
            "what": "onnx-int8",
            "resolution": checkpoint.architecture.resolution,
            "macs": lower(checkpoint.architecture).macs,
            "float_bytes": plain["bytes"],
            **{key: value for key, value in report.items() if key not in ("path", "preprocessing")},
        }


def _timed(work: Path) -> Iterator[dict[str, Any]]:
    """8-bit and float32 files side by side on this machine, one thread."""
    target = load_target("host")
    for path in sorted(work.glob("*-int8.onnx")):
        plain = path.with_name(path.name.replace("-int8", ""))
        timings = target.open().measure(
            [path.read_bytes(), plain.read_bytes()], settings=target.settings, effort=EFFORT
        )
        ratio = compare(timings[0], timings[1])
        yield {
            "network": plain.stem,
            "what": "latency",
            "int8_ms": timings[0].low_ms,
            "float_ms": timings[1].low_ms,
            "ratio": ratio.ratio,
            "ratio_low": ratio.low,
            "ratio_high": ratio.high,
            "stable": [timing.stable for timing in timings],
        }


def _as_trained(source: str, checkpoint: Any) -> Data:
    data = load_data(source, resolution=checkpoint.architecture.resolution, seed=int(checkpoint.metrics.get("seed", 0)))
    return as_trained(data, checkpoint)


if __name__ == "__main__":
    main()
