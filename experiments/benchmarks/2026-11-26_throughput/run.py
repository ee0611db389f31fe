"""Images a second of `nas train` as it sets itself up, against the loop that people write, for three kinds of network.

Each sample is a process of its own, as memory settings belong to a process. Set-ups take turns until the time is up.

    python -m experiments.benchmarks.2026-11-26_throughput.run --minutes 4.5
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
IMAGES, BATCH, STEPS, WARM = 20_000, 64, 20, 4
SETUPS = ("naive", "default", "side by side")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=4.5)
    parser.add_argument("--child", nargs=3)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    from experiments.kinds import architectures
    from experiments.record import write_record

    end = time.monotonic() + 60 * options.minutes
    samples: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        noise(Path(folder) / "noise.npz")
        sample("uib", "default", folder)  # decodes the images, once for all
        augmentations = sample("any", "augmentation", folder)
        while time.monotonic() < end:
            for kind in architectures():
                for setup in SETUPS:
                    samples.setdefault((kind, setup), []).append(sample(kind, setup, folder))
                    print(kind, setup, samples[kind, setup][-1], file=sys.stderr)
    write_record(HERE / "result.jsonl", [*summaries(samples), {"what": "RandAugment, images/s", **augmentations}])


def summaries(samples: dict[tuple[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    lines = []
    for (kind, setup), found in samples.items():
        speeds = [one["images_per_second"] for one in found]
        naive = [one["images_per_second"] for one in samples[kind, "naive"]]
        lines.append(
            {
                "network": kind,
                "setup": setup,
                "n": len(speeds),
                "images_per_second": round(statistics.median(speeds), 1),
                "images_per_second_all": [round(speed, 1) for speed in speeds],
                "times_naive": round(statistics.median(speeds) / statistics.median(naive), 2),
                "chosen": [one["chosen"] for one in found],
                "outside_share": [one["outside_share"] for one in found],
            }
        )
    return lines


def sample(kind: str, setup: str, folder: str) -> dict[str, Any]:
    """One measurement; side by side: two processes of one thread, their speeds added."""
    command = [sys.executable, "-m", "experiments.benchmarks.2026-11-26_throughput.run", "--child", kind, setup, folder]
    count = 2 if setup == "side by side" else 1
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    if count == 2:
        told[0]["images_per_second"] += told[1]["images_per_second"]
    return told[0]


def child(kind: str, setup: str, folder: str) -> dict[str, Any]:
    from experiments.kinds import architectures
    from nas.data import load_data

    if setup == "augmentation":
        return augmentation(load_data(f"{folder}/noise.npz", validation=0.01, cache=Path(folder)))
    architecture = architectures()[kind]
    if setup == "naive":
        return naive(architecture, folder)
    data = load_data(f"{folder}/noise.npz", validation=0.01, cache=Path(folder))
    return ours(architecture, data, threads=1 if setup == "side by side" else None)


def ours(architecture: Any, data: Any, *, threads: int | None) -> dict[str, Any]:
    """`nas train`, with the one method that does forward and backward timed from outside."""
    import dataclasses

    import torch

    import nas.training
    from nas.recipe import Recipe
    from nas.threads import fastest_setup

    recipe = Recipe(images=(STEPS + WARM) * BATCH, batch_size=BATCH, ema_decay=0.998)
    setup = fastest_setup(architecture, recipe, threads=threads)
    torch.set_num_threads(setup.threads)
    moments: list[float] = []
    inside: list[float] = []
    plain = nas.training._Run.gradients

    def timed(run: Any, *batch: Any) -> None:
        began = time.perf_counter()
        plain(run, *batch)
        inside.append(time.perf_counter() - began)

    def watch() -> bool:
        moments.append(time.perf_counter())
        return False

    nas.training._Run.gradients = timed  # type: ignore[method-assign]
    nas.training.train(architecture, data, dataclasses.replace(recipe, channels_last=setup.channels_last), stop=watch)
    seconds = moments[-1] - moments[WARM - 1]
    return {
        "images_per_second": STEPS * BATCH / seconds,
        "chosen": dataclasses.asdict(setup),
        "outside_share": round(1 - sum(inside[WARM:]) / seconds, 4),
    }


def naive(architecture: Any, folder: str) -> dict[str, Any]:
    """What people write: a data set that gives one image at a time, DataLoader, NCHW, torch's defaults."""
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader, Dataset

    from searchspace.network import Network

    archive = np.load(f"{folder}/noise.npz")
    images, labels = archive["x_train"], archive["y_train"]

    class Images(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            image = torch.from_numpy(images[index]).permute(2, 0, 1).float() / 255
            padded = F.pad(image, (4, 4, 4, 4), mode="reflect")
            top, left = torch.randint(0, 9, (2,)).tolist()
            image = padded[:, top : top + 32, left : left + 32]
            if torch.rand(()) < 0.5:
                image = image.flip(2)
            return (image - 0.5) / 0.25, int(labels[index])

    network = Network(architecture).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    began = inside = 0.0
    for step, (batch, wanted) in enumerate(DataLoader(Images(), batch_size=BATCH, shuffle=True)):
        if step == WARM:
            began, inside = time.perf_counter(), 0.0
        before = time.perf_counter()
        F.cross_entropy(network(batch), wanted).backward()
        inside += time.perf_counter() - before
        optimizer.step()
        optimizer.zero_grad()
        if step == WARM + STEPS - 1:
            break
    seconds = time.perf_counter() - began
    return {
        "images_per_second": STEPS * BATCH / seconds,
        "chosen": {"threads": torch.get_num_threads(), "channels_last": False},
        "outside_share": round(1 - inside / seconds, 4),
    }


def augmentation(data: Any) -> dict[str, Any]:
    """Batches with crop, flip and two changes of RandAugment, by us and by kornia, one thread; rounds take turns."""
    import torch

    from nas.data import Augmentation, Batches

    torch.set_num_threads(1)
    ways = {
        name: Batches(split=data.train, data=data, batch_size=BATCH, augment=Augmentation(changes=changes))
        for name, changes in (("crop and flip", 0), ("and RandAugment, ours", 2))
    }
    speeds: dict[str, list[float]] = {name: [] for name in (*ways, "RandAugment alone, kornia")}
    try:
        import kornia
        from kornia.augmentation.auto import RandAugment

        theirs, version = RandAugment(n=2, m=9), kornia.__version__
    except ImportError:
        theirs, version = None, None
    for turn in range(4):
        for name, batches in ways.items():
            began = time.perf_counter()
            for _ in batches.stream(start=turn * 1280, images=1280):
                pass
            speeds[name].append(1280 / (time.perf_counter() - began))
        if theirs is not None:
            images = torch.rand(BATCH, 3, 32, 32)
            began = time.perf_counter()
            for _ in range(20):
                theirs(images)
            speeds["RandAugment alone, kornia"].append(1280 / (time.perf_counter() - began))
    return {"kornia": version, **{name: round(max(found)) for name, found in speeds.items() if found}}


def noise(path: Path) -> None:
    """Images whose content does not matter here."""
    source = np.random.default_rng(0)
    pixels = source.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(IMAGES) % 10
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:64], y_test=labels[:64])


if __name__ == "__main__":
    main()
