"""Trains the 24 networks of `networks.jsonl` in every way whose ranking this record compares; `analyse.py` compares them.

    python experiments/benchmarks/2026-11-25_rank_fidelity/run.py --data CIFAR10 --work FOLDER [--minutes M]

One training is a unit: its result is a JSON file in FOLDER (losses of all steps, validation of the last weights and of their
average, CPU seconds), its weights lie beside it. Units that are there are not repeated, and several processes may work in one
FOLDER. CPU seconds are counted, not those of the clock, since other work may run beside.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from latency.host import computing
from nas.average import Average
from nas.data import Batches, Data, load_data
from nas.memory import keep_freed_memory
from nas.optimisation import augmentation, learning_rate, make_optimizer
from nas.recipe import load_recipe
from searchspace.architecture import Architecture
from searchspace.files import write_atomically
from searchspace.network import Network

HERE = Path(__file__).parent
DECAYS = (0.98,)
REFERENCE_SEED, BRIEF_SEED = 0, 1  # a brief score that shared the reference's order and start would be flattered


@dataclass(frozen=True)
class Way:
    """One way to train a network.

    Attributes:
        images: how many are trained on.
        after: the way whose weights are the start and whose images are not seen again; None: a random start.
        schedule: of the learning rate.
        looks: images after which the network is judged; the end is always among them.
        resolution: pixels a side.
        seed: of start, order and augmentation.
        augment: whether images are moved and mirrored.
        inherit: from which way's siblings weights are taken: those of all others, or of those before it in the list.
        average: whether an average of the weights is kept, and judged too.
    """

    images: int
    after: str | None = None
    schedule: str = "one_cycle"
    looks: tuple[int, ...] = ()
    resolution: int = 32
    seed: int = BRIEF_SEED
    augment: bool = True
    inherit: tuple[str, str] | None = None
    average: bool = False


WAYS = {
    "own_5k": Way(5_000, average=True),
    "own_2.5k": Way(2_500, average=True),
    "full_50k": Way(50_000, seed=REFERENCE_SEED),
    "own_1k": Way(1_000),
    "warm_2.5k": Way(2_500, inherit=("own_2.5k", "others")),
    "warm_1k": Way(1_000, inherit=("own_2.5k", "others")),
    "5k+15k": Way(15_000, after="own_5k"),
    "warm_chain_2.5k": Way(2_500, inherit=("warm_chain_2.5k", "earlier")),
    "full_50k_again": Way(50_000, seed=2),
    "2.5k+7.5k": Way(7_500, after="own_2.5k"),
    "own_5k_16px": Way(5_000, resolution=16),
    "plain_2.5k": Way(2_500, augment=False),
    "constant_2.5k": Way(2_500, schedule="constant", looks=(1_000,)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="CIFAR-10, as `nas --data` takes it")
    parser.add_argument("--work", type=Path, required=True, help="folder of what was trained")
    parser.add_argument("--minutes", type=float, default=600.0, help="no unit is begun after so long")
    parser.add_argument("--ways", default=",".join(WAYS), help="which, in the order of importance")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    given.work.mkdir(parents=True, exist_ok=True)
    networks = [json.loads(line) for line in (HERE / "networks.jsonl").read_text().splitlines()]
    architectures = [Architecture.from_dict(network["architecture"]) for network in networks]
    data = {pixels: load_data(given.data, resolution=pixels) for pixels in {way.resolution for way in WAYS.values()}}
    deadline = time.monotonic() + 60 * given.minutes
    for way in given.ways.split(","):
        for index in range(len(architectures)):
            if time.monotonic() > deadline:
                return
            with Claim(given.work, f"{index:02}.{way}") as mine, computing("training") as give_way:
                if mine:
                    train(given.work, architectures, index, way, data=data, give_way=give_way)


class Claim:
    """Whether this process may do a unit: it is not done yet, and nobody alive is at it."""

    def __init__(self, work: Path, unit: str) -> None:
        self.done, self.lock = work / f"{unit}.json", work / f"{unit}.lock"

    def __enter__(self) -> bool:
        self.mine = False
        if self.done.exists():
            return False
        try:
            if self.lock.exists() and not Path(f"/proc/{self.lock.read_text()}").exists():
                self.lock.unlink()
            with self.lock.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return False
        self.mine = not self.done.exists()
        return self.mine

    def __exit__(self, *_: object) -> None:
        if self.mine:
            self.lock.unlink(missing_ok=True)


def train(
    work: Path,
    architectures: list[Architecture],
    index: int,
    name: str,
    *,
    data: dict[int, Data],
    give_way: Callable[[], None],
) -> None:
    """Train one network one way, giving way to measuring on this machine between steps."""
    way = WAYS[name]
    architecture = dataclasses.replace(architectures[index], resolution=way.resolution)
    images = data[way.resolution]
    recipe = dataclasses.replace(load_recipe("brief"), images=way.images, schedule=way.schedule)
    torch.manual_seed(1000 * way.seed + 7)
    network = Network(architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    told: dict[str, object] = {}
    skip = 0
    if way.after:
        network.load_state_dict(torch.load(work / f"{index:02}.{way.after}.pt", weights_only=True))
        skip = WAYS[way.after].images
    if way.inherit:
        state, told = inherited(work, architectures, index, network, way.inherit)
        network.load_state_dict(state)
    optimizer = make_optimizer(network, recipe)
    averages = {
        decay: Average(network, decay=decay, device=torch.device("cpu"), layout=torch.channels_last) for decay in DECAYS
    }
    steps = way.images // recipe.batch_size
    looks = {round(look / recipe.batch_size) for look in way.looks} | {steps}
    batches = Batches(
        split=images.train,
        data=images,
        batch_size=recipe.batch_size,
        augment=augmentation(recipe, images) if way.augment else None,
        seed=way.seed,
    )
    losses: list[float] = []
    judged = []
    training_s = average_s = 0.0
    network.train()
    stream = iter(batches.stream(start=skip, images=steps * recipe.batch_size))
    for step in range(steps):
        give_way()
        began = time.process_time()
        x, y = next(stream)
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps=steps)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 4))
        training_s += time.process_time() - began
        began = time.process_time()
        for average in averages.values():
            average.update(step)
        average_s += time.process_time() - began
        if step + 1 in looks:
            last = step + 1 == steps
            point, arrays = look(network, averages, images)
            judged.append({"images": (step + 1) * recipe.batch_size, "training_s": round(training_s, 3), **point})
            if last:
                np.savez_compressed(work / f"{index:02}.{name}.npz", **arrays)
    torch.save(network.state_dict(), work / f"{index:02}.{name}.pt")
    line = {
        "network": index,
        "way": name,
        "images": steps * recipe.batch_size,
        "training_s": round(training_s, 3),
        "average_s": round(average_s / len(DECAYS), 3),
        **told,
        "looks": judged,
        "losses": losses,
    }
    write_atomically(work / f"{index:02}.{name}.json", json.dumps(line).encode())
    print(index, name, line["training_s"], judged[-1]["last"], flush=True)


@torch.inference_mode()
def look(
    network: Network, averages: dict[float, Average], data: Data
) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Validation accuracy and loss of the weights and of their averages, and each image's own for the weights."""
    point: dict[str, object] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, judged in [("last", network), *((f"ema_{decay}", one.network) for decay, one in averages.items())]:
        began = time.process_time()
        judged.eval()
        losses, right = [], []
        batches = Batches(split=data.validation, data=data, batch_size=256, shuffle=False)
        for x, y in batches.epoch():
            logits = judged(x)
            losses.append(F.cross_entropy(logits, y, reduction="none"))
            right.append(logits.argmax(1) == y)
        loss, correct = torch.cat(losses), torch.cat(right)
        point[name] = {
            "accuracy": correct.float().mean().item(),
            "loss": loss.mean().item(),
            "seconds": round(time.process_time() - began, 3),
        }
        if name == "last":
            arrays = {"loss": loss.numpy().astype(np.float16), "right": np.packbits(correct.numpy())}
    network.train()
    return point, arrays


def inherited(
    work: Path, architectures: list[Architecture], index: int, network: Network, source: tuple[str, str]
) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """The network's start, with weights of the nearest sibling where there is one."""
    from nas.inheritance import inherit, likeness

    way, who = source
    siblings = [one for one in range(len(architectures)) if (one < index if who == "earlier" else one != index)]
    if not siblings:
        return network.state_dict(), {"parent": None, "likeness": 0.0}
    shares = {one: likeness(architectures[index], architectures[one]) for one in siblings}
    nearest = max(shares, key=shares.__getitem__)
    state = torch.load(work / f"{nearest:02}.{way}.pt", weights_only=True)
    return (
        inherit(network.state_dict(), architectures[index], state, architectures[nearest]),
        {"parent": nearest, "likeness": round(shares[nearest], 4)},
    )


if __name__ == "__main__":
    main()
