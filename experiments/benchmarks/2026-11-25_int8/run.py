"""8-bit files beside float32: what they say, what they cost in accuracy, how long they take; and what each measure is worth.

    python -m experiments.benchmarks.2026-11-25_int8.run judge NAME=CHECKPOINT… --data DATA --work FOLDER
    python -m experiments.benchmarks.2026-11-25_int8.run time --work FOLDER      # nothing else on the machine
    python -m experiments.benchmarks.2026-11-25_int8.run record --work FOLDER

``judge`` quantises each network in three ways: as ONNX Runtime's quantiser does by itself (weights to 8 bits, each to the
nearest), with weights within 7 bits, and as `nas export --format onnx-int8` does. Layers to be left in float are chosen on the
validation split; what is recorded is on the test split.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from experiments.record import write_record
from latency.comparison import compare
from latency.settings import Effort
from latency.target import load_target
from nas.checkpoint import Checkpoint, load_checkpoint
from nas.data import Data, load_data
from nas.deployment import onnx_model
from nas.evaluation import as_trained
from nas.shipping import int8
from searchspace.architecture import lower

HERE = Path(__file__).parent
EFFORT = Effort(processes=3, slices=12, limit_s=15.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("judge", "time", "record"))
    parser.add_argument("networks", nargs="*", metavar="NAME=CHECKPOINT")
    parser.add_argument("--data", help="CIFAR-10")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--min-agreement", type=float, default=int8.MIN_AGREEMENT)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    match options.part:
        case "judge":
            for name, _, path in (given.partition("=") for given in options.networks):
                row = options.work / f"{name}.json"
                if not row.exists():
                    found = judge(load_checkpoint(Path(path)), options.data, row, options.min_agreement)
                    row.write_text(json.dumps({"network": name, **found}))
        case "time":
            (options.work / "times.jsonl").write_text("".join(json.dumps(row) + "\n" for row in times(options.work)))
        case "record":
            files = sorted(options.work.glob("**/*.json"))
            write_record(HERE / "result.jsonl", [json.loads(file.read_text()) for file in files])
            if (options.work / "times.jsonl").exists():
                timed = (options.work / "times.jsonl").read_text().splitlines()
                write_record(HERE / "times.jsonl", [json.loads(line) for line in timed])


def judge(checkpoint: Checkpoint, source: str, row: Path, min_agreement: float) -> dict[str, Any]:
    """What 8 bits cost in each way, on the test split; leaves the files for `times`."""
    seed = int(checkpoint.metrics.get("seed", 0))
    data = as_trained(load_data(source, resolution=checkpoint.architecture.resolution, seed=seed), checkpoint)
    plain = onnx_model(checkpoint, batch=None)
    began = time.process_time()
    made = int8.quantize(checkpoint, data, min_agreement=min_agreement)
    seconds = time.process_time() - began
    row.with_name(f"{row.stem}.onnx").write_bytes(onnx_model(checkpoint))
    row.with_name(f"{row.stem}-int8.onnx").write_bytes(made.model)
    graph = lower(checkpoint.architecture)
    wanted, labels = int8.said(plain, data.test, data), data.test.labels.numpy()
    found: dict[str, Any] = {
        "min_agreement": min_agreement,
        "fingerprint": checkpoint.architecture.fingerprint,
        "macs": graph.macs,
        "params": graph.params,
        "float_accuracy": float(np.mean(wanted == labels)),
        "float_bytes": len(onnx_model(checkpoint)),
        "int8_bytes": len(made.model),
        "float_layers": list(made.float_layers),
        "validation_agreement": made.agreement,
        "seconds": seconds,
    }
    ways = {
        "quantiser": plain_quantiser(plain, data, 8),
        "seven bits": plain_quantiser(plain, data, 7),
        "export": made.model,
    }
    for way, model in ways.items():
        answers = int8.said(model, data.test, data)
        found[way] = {
            "agreement": float(np.mean(answers == wanted)),
            "accuracy": float(np.mean(answers == labels)),
        }
    return found


def plain_quantiser(model: bytes, data: Data, bits: int) -> bytes:
    """ONNX Runtime's static quantiser by itself."""
    images = int8._calibration_images(data, int8.CALIBRATION_IMAGES)
    made = onnx.ModelProto()
    with int8.tempfile.TemporaryDirectory() as folder, int8._quietly():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            onnx.load_from_string(model),
            path,
            int8._Reader(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=bits == 7,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        made.ParseFromString(path.read_bytes())
    serialized: bytes = made.SerializeToString()
    return serialized


def times(work: Path) -> list[dict[str, Any]]:
    """8-bit and float32 files side by side on this machine, one thread."""
    target, rows = load_target("host"), []
    for path in sorted(work.glob("*-int8.onnx")):
        plain = path.with_name(path.name.replace("-int8", ""))
        timings = target.open().measure(
            [path.read_bytes(), plain.read_bytes()], settings=target.settings, effort=EFFORT
        )
        ratio = compare(timings[0], timings[1])
        rows.append(
            {
                "network": plain.stem,
                "int8_ms": timings[0].low_ms,
                "float_ms": timings[1].low_ms,
                "ratio": ratio.ratio,
                "ratio_low": ratio.low,
                "ratio_high": ratio.high,
                "stable": [timing.stable for timing in timings],
            }
        )
    return rows


if __name__ == "__main__":
    main()
