"""Every float format beside the checkpoint: references and 20 sampled networks."""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.record import write_record
from nas.data import load_data
from nas.deployment import random_checkpoint
from nas.errors import ExportError
from nas.shipping.formats import Wish, export
from searchspace.architecture import Architecture
from searchspace.references import REFERENCES, reference
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space

HERE = Path(__file__).parent
SIDE = 96  # pixels of the references' images
SAMPLED = 20
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
    parser.add_argument("part", choices=("float",))
    parser.add_argument("--data", default="cifar10", help="CIFAR-10")
    parser.add_argument("--formats", nargs="*", default=["onnx", "onnx, any batch, from pixels", "ort", "torch"])
    arguments = parser.parse_args()
    lines = _untrained(arguments.data, {name: WISHES[name] for name in arguments.formats})
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


if __name__ == "__main__":
    main()
