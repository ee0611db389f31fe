"""The exported `model.py` where torch is alone: makes the folder and its images here, judges it there.

    python -m experiments.benchmarks.2026-11-24_exports.standalone make CHECKPOINT --data DATA --work FOLDER
    TORCH_ALONE/bin/python -I standalone.py judge --work FOLDER      # an environment with torch and nothing of ours

``judge`` imports nothing but torch and the exported folder.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("make", "judge"))
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    if options.part == "make":
        make(options.checkpoint, options.data, options.work)
    else:
        judge(options.work)


def make(path: Path, source: str, work: Path) -> None:
    """Export the network, and keep its logits of 256 test images."""
    import torch

    from nas.checkpoint import load_checkpoint
    from nas.data import load_data
    from nas.deployment import first_images
    from nas.evaluation import as_trained
    from nas.shipping.formats import Wish, export

    checkpoint = load_checkpoint(path)
    data = as_trained(load_data(source, resolution=checkpoint.architecture.resolution, limit=2000), checkpoint)
    work.mkdir(parents=True, exist_ok=True)
    export(checkpoint, work / "shipped", Wish(format="torch"), data=data)
    images = first_images(data.test, data, images=256)
    with torch.inference_mode():
        torch.save({"images": images, "logits": checkpoint.network().eval()(images)}, work / "wanted.pt")


def judge(work: Path) -> None:
    """The largest difference of a logit."""
    sys.path.insert(0, str(work / "shipped"))
    import model  # type: ignore[import-not-found]
    import torch

    wanted = torch.load(work / "wanted.pt", weights_only=True)
    with torch.inference_mode():
        difference = (model.load()(wanted["images"]) - wanted["logits"]).abs().max()
    ours = sorted({"nas", "searchspace", "latency", "numpy", "onnx", "onnxruntime"} & set(sys.modules))
    told = {
        "images": len(wanted["images"]),
        "max_abs_diff": float(difference),
        "torch": torch.__version__,
        "beside": ours,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
