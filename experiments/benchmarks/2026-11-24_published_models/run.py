"""How well latencies of families of networks follow from the published ones of other families; `--write` ships the models."""

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.record import write_record
from latency.fitting import accuracy
from latency.published import model as published_model
from latency.published.figures import Figure, figures, newest_runtime, published_targets
from latency.published.fitting import judge
from latency.published.model import PublishedModel, fit_published, shipped_model
from latency.published.networks import published_network
from latency.target import load_target
from searchspace.architecture import lower
from searchspace.blocks import UIB
from searchspace.graph import Norm, Shape

HERE = Path(__file__).parent
FBNET, PROXYLESSNAS = "FBNet blocks, 32 to 4 px, Pixel 3", "ProxylessNAS blocks, 224 px, Pixel 1"

# Outside of the fit: TensorFlow Lite's hosted models on Pixel 3, float32, four threads (hosted_models.md, read in the source).
HOSTED = {
    ("mobilenet_v1", 0.25, 224): 3.3,
    ("mobilenet_v1", 0.5, 224): 7.9,
    ("mobilenet_v1", 0.75, 224): 14.6,
    ("mobilenet_v1", 1.0, 128): 9.0,
    ("mobilenet_v1", 1.0, 160): 13.4,
    ("mobilenet_v1", 1.0, 192): 18.1,
    ("mobilenet_v1", 1.0, 224): 24.0,
    ("mobilenet_v2", 1.0, 224): 17.5,
    ("mnasnet_b1", 1.0, 96): 5.6,
    ("mnasnet_b1", 1.0, 128): 7.5,
    ("mnasnet_b1", 1.0, 160): 11.1,
    ("mnasnet_b1", 1.0, 192): 14.5,
    ("mnasnet_b1", 1.0, 224): 19.4,
    ("squeezenet_1_0", 1.0, 224): 36.0,
}
# What nn-Meter predicts (not measures) for one Cortex-A76 core of a Pixel 4, float32 (its reference_result.txt, MIT).
NN_METER = {
    "mobilenet_v1": 66.98,
    "mobilenet_v2": 45.95,
    "mobilenet_v3_large": 35.45,
    "mobilenet_v3_small": 12.56,
    "mnasnet_a1": 51.64,
    "proxylessnas_mobile": 51.63,
    "squeezenet_1_0": 97.73,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the models that the package ships")
    parser.add_argument("--blocks", type=Path, help="folder of the two tables of blocks (see README.md)")
    arguments = parser.parse_args()
    lines: list[dict[str, Any]] = []
    for target in published_targets():
        shipped = fit_published(target, load_target(target).settings.precision)
        if arguments.write:
            shipped.save(Path(published_model.__file__).parent / "models" / f"{target}.json")
        lines += _judged(target)
        lines.append({"what": "model", **shipped.as_json()})
    lines += _outside(fit_published("pixel3", "fp32"))
    lines += _blocks(arguments.blocks) if arguments.blocks is not None else _blocks_before(HERE / "result.jsonl")
    for line in lines:
        if line["what"] in ("held out", "outside"):
            print({key: value for key, value in line.items() if key not in ("networks",)})
    write_record(HERE / "result.jsonl", lines)


def _judged(target: str) -> Iterator[dict[str, Any]]:
    found, newest = figures(target), newest_runtime(target)
    ours, by_macs = judge(found, newest).predicted_ms, _macs_only(found, newest)
    direct = [index for index, figure in enumerate(found) if figure.standing != "derived"]
    for which, indices in (("all figures", range(len(found))), ("networks that were timed", direct)):
        ms = np.array([found[index].ms for index in indices])
        for method, predicted in (("this", ours), ("MACs alone", by_macs)):
            yield {
                "what": "held out",
                "target": target,
                "which": which,
                "method": method,
                "networks": len({found[index].architecture.fingerprint for index in indices}),
                **accuracy(np.array([predicted[index] for index in indices]), ms).as_json(),
            }
    for figure, this, other in zip(found, ours, by_macs, strict=True):
        yield {
            "what": "figure",
            "target": target,
            "network": figure.architecture.name,
            "resolution": figure.architecture.resolution,
            "family": figure.family,
            "runtime": figure.runtime,
            "source": figure.source,
            "ms": figure.ms,
            "held_out_ms": this,
            "by_macs_ms": other,
        }


def _macs_only(found: Sequence[Figure], newest: str) -> Sequence[float]:
    """The same with MACs alone, of whatever convolution; runtimes have scales of their own there, too."""
    rows = [{"macs": float(lower(figure.architecture).macs)} for figure in found]
    return judge(found, newest, rows=rows, terms=("macs",)).predicted_ms


def _outside(model: PublishedModel) -> Iterator[dict[str, Any]]:
    """How the Pixel 3 model ranks networks timed under other conditions; one factor for each set, its median ratio."""
    hosted = [
        (published_network(name, width_multiplier=width, resolution=side), ms)
        for (name, width, side), ms in HOSTED.items()
    ]
    meter = [(published_network(name, resolution=224), ms) for name, ms in NN_METER.items()]
    for which, rows in (("TF-Lite hosted, Pixel 3, 4 threads", hosted), ("nn-Meter, Pixel 4", meter)):
        predicted = np.array([model.predict(network).ms for network, _ in rows])
        ms = np.array([one for _, one in rows])
        factor = float(np.median(ms / predicted))
        yield {
            "what": "outside",
            "which": which,
            "factor": factor,
            "errors": {
                f"{network.name} {network.resolution}": round(float(one), 3)
                for (network, _), one in zip(rows, factor * predicted / ms - 1, strict=True)
            },
            **accuracy(factor * predicted, ms).as_json(),
        }


def _blocks_before(record: Path) -> Iterator[dict[str, Any]]:
    """What the record says of single blocks, whose tables are not part of the package; with the date of when that was found."""
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()] if record.exists() else []
    for line in lines:
        if line.get("which") in (FBNET, PROXYLESSNAS):
            yield {"date": lines[0]["date"], **line}


def _blocks(folder: Path) -> Iterator[dict[str, Any]]:
    """How the models tell single blocks that others timed: of CIFAR-sized networks on Pixel 3, of large ones on Pixel 1."""
    tables = (
        (FBNET, "pixel3", _fbnet_blocks(folder / "hwnasbench_fbnet_cifar_blocks_recovered.csv")),
        (PROXYLESSNAS, "pixel1", _proxylessnas_blocks(folder / "proxylessnas_pixel1_blocks.csv")),
    )
    for which, target, rows in tables:
        model = shipped_model(target)
        timed = [(block, shape, ms) for block, shape, ms in rows]
        predicted = np.array([sum(model.block_costs(block, shape, Norm()).values()) for block, shape, _ in timed])
        ms = np.array([one for _, _, one in timed])
        factor = float(np.median(ms / predicted))
        yield {"what": "outside", "which": which, "factor": factor, **accuracy(factor * predicted, ms).as_json()}


def _fbnet_blocks(path: Path) -> Iterator[tuple[UIB, Shape, float]]:
    for row in _rows(path):
        if row["skip_is_identity"] == "1" and row["groups"] == "1":
            width, side = int(row["in_c"]), int(row["in_hw"])
            block = UIB(cout=width, hidden=width * int(row["expand_ratio"]), dw_mid=int(row["kernel"]), residual=True)
            yield block, Shape(width, side, side), float(row["pixel3_ms_above_skip"])


def _proxylessnas_blocks(path: Path) -> Iterator[tuple[UIB, Shape, float]]:
    for row in _rows(path):
        if row["op"] == "expanded_conv":
            width, side, expansion = int(row["in_c"]), int(row["in_h"]), int(row["expand_ratio"])
            block = UIB(
                cout=int(row["out_c"]),
                hidden=None if expansion == 1 else width * expansion,
                dw_mid=int(row["kernel"]),
                stride=int(row["stride"]),
                residual=row["residual"] == "1",
                activation="relu6",
            )
            yield block, Shape(width, side, side), float(row["mean_ms"])


def _rows(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


if __name__ == "__main__":
    main()
