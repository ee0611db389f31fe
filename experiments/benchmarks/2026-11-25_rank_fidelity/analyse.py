"""Compares every brief score with full training: writes `result.jsonl`, from what `run.py` left in a folder.

python experiments/benchmarks/2026-11-25_rank_fidelity/analyse.py --work FOLDER --data CIFAR10
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from experiments.record import write_record
from nas.data import load_data
from nas.fidelity import ZERO_COSTS, rank_agreement
from nas.zero_cost import zero_cost_score
from searchspace.architecture import Architecture

HERE = Path(__file__).parent
FULL, AGAIN = "full_50k", "full_50k_again"
FEWEST = 12  # networks, for a tau to be worth telling
PAIRS = (
    ("warm_2.5k", "own_2.5k"),
    ("warm_chain_2.5k", "own_2.5k"),
    ("warm_1k", "own_1k"),
    ("warm_1k", "own_2.5k"),
    ("own_1k", "own_2.5k"),
    ("own_5k", "own_2.5k"),
    ("own_5k_16px", "own_2.5k"),
    ("plain_2.5k", "own_2.5k"),
    ("2.5k+7.5k", "own_2.5k"),
    ("5k+15k", "own_5k"),
)
SUBSETS = (1_000, 2_500)  # of the 5,000 validation images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", help="images, if scores without training are wanted")
    given = parser.parse_args()
    torch.set_num_threads(1)
    networks = [json.loads(line) for line in (HERE / "networks.jsonl").read_text().splitlines()]
    units: dict[str, dict[int, Any]] = {}
    for path in sorted(given.work.glob("*.json")):
        unit = json.loads(path.read_text())
        units.setdefault(unit["way"], {})[unit["network"]] = unit
    full = {index: unit["looks"][-1]["last"]["accuracy"] for index, unit in units[FULL].items()}
    again = {index: unit["looks"][-1]["last"]["accuracy"] for index, unit in units.get(AGAIN, {}).items()}
    reference = {index: (full[index] + again[index]) / 2 if index in again else full[index] for index in full}
    full_s = statistics.median(unit["training_s"] for unit in units[FULL].values())
    lines: list[dict[str, Any]] = [
        {
            "what": "reference",
            "networks": len(reference),
            "accuracies": [round(reference[index], 4) for index in sorted(reference)],
            "spread_sd": round(statistics.stdev(reference.values()), 4),
            "training_s": round(full_s, 1),
        }
    ]
    if again:
        both = sorted(again)
        differences = [full[index] - again[index] for index in both]
        lines.append(
            {
                "what": "two seeds of the reference",
                **agreement({index: full[index] for index in both}, again),
                "sd_of_one_seed": round(statistics.stdev(differences) / 2**0.5, 4),
            }
        )
    for way, done in units.items():
        if way in (FULL, AGAIN) or len(done.keys() & reference.keys()) < FEWEST:
            continue
        for scored in scores(way, done, given.work):
            values = scored.pop("values")
            lines.append({"what": "score", "way": way, **scored, **agreement(values, reference)})
    lines += between(units)
    for way, other in PAIRS:
        if len(units.get(way, {}).keys() & units.get(other, {}).keys() & reference.keys()) >= FEWEST:
            lines.append({"what": f"{way} against {other}", **difference(units[way], units[other], reference)})
    found = untrained(given.work, given.data, networks) if given.data else {}
    for name, (values, seconds) in found.items():
        line = {"what": "score", "way": "untrained", "score": name, "seconds": round(statistics.median(seconds), 3)}
        lines.append(line | agreement(dict(enumerate(values)), reference))
    for line in lines:
        if line["what"] == "score":
            line["cost_share"] = round(line["seconds"] / full_s, 4)
    write_record(HERE / "result.jsonl", lines)
    for line in lines:
        if line["what"] != "reference":
            print(
                f"{line.get('way', line['what']):28} {line.get('images', ''):>6} {line.get('score', ''):26} "
                f"{line['tau']:6.2f} [{line['low']:5.2f}, {line['high']:5.2f}] n={line['candidates']} "
                f"{line.get('seconds', 0):6.2f} s {line.get('cost_share', 0):.3f}"
            )


def untrained(work: Path, data: str, networks: list[dict[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Scores of the networks as they are, and the seconds that each took; kept in the folder."""
    kept = work / "untrained" / "scores.json"
    if not kept.exists():
        images = load_data(data, resolution=32)
        architectures = [Architecture.from_dict(network["architecture"]) for network in networks]
        both: dict[str, tuple[list[float], list[float]]] = {"ms": ([one["ms"] for one in networks], [0.0])}
        for name in ZERO_COSTS:
            pairs = [zero_cost_score(name, architecture, images) for architecture in architectures]
            both[name] = ([value for value, _ in pairs], [seconds for _, seconds in pairs])
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(both))
    found: dict[str, tuple[list[float], list[float]]] = json.loads(kept.read_text())
    return found


def scores(way: str, done: dict[int, Any], work: Path) -> list[dict[str, Any]]:
    """Every score of one way to train, each with the CPU seconds that it costs (validation included where it needs it)."""
    result = []
    some = next(iter(done.values()))
    for look in range(len(some["looks"])):
        points = {index: unit["looks"][look] for index, unit in done.items()}
        images = some["looks"][look]["images"]
        steps = len(next(iter(done.values()))["losses"]) * images // some["images"]
        training_s = statistics.median(point["training_s"] for point in points.values())
        judging_s = statistics.median(point["last"]["seconds"] for point in points.values())
        common = {"images": images, "training_s": round(training_s, 2)}

        def add(score: str, values: dict[int, float], seconds: float, common: dict[str, Any] = common) -> None:
            result.append({**common, "score": score, "seconds": round(seconds, 2), "values": values})

        add("accuracy", {i: point["last"]["accuracy"] for i, point in points.items()}, training_s + judging_s)
        add("loss", {i: -point["last"]["loss"] for i, point in points.items()}, training_s + judging_s)
        if all("ema_0.98" in point for point in points.values()):
            for kind, sign in (("accuracy", 1), ("loss", -1)):
                average = {i: sign * point["ema_0.98"][kind] for i, point in points.items()}
                add(f"ema {kind}", average, training_s + judging_s)
        losses = {i: np.array(unit["losses"][:steps]) for i, unit in done.items()}
        add("training loss, sum", {i: -one.sum() for i, one in losses.items()}, training_s)
        add("training loss, last half", {i: -one[steps // 2 :].mean() for i, one in losses.items()}, training_s)
        add("training loss, last fifth", {i: -one[-steps // 5 :].mean() for i, one in losses.items()}, training_s)
        if look + 1 == len(some["looks"]):
            for count in SUBSETS:
                arrays = {i: np.load(work / f"{i:02}.{way}.npz") for i in done}
                right = {i: float(np.unpackbits(one["right"])[:count].mean()) for i, one in arrays.items()}
                loss = {i: -float(one["loss"][:count].astype(float).mean()) for i, one in arrays.items()}
                share_s = training_s + judging_s * count / 5_000
                add(f"accuracy of {count} images", right, share_s)
                add(f"loss of {count} images", loss, share_s)
    return result


def between(units: dict[str, dict[int, Any]]) -> list[dict[str, Any]]:
    """How alike rungs rank as the ones that follow them."""
    lines = []
    for one, other in (("own_2.5k", "2.5k+7.5k"), ("own_5k", "5k+15k")):
        if one in units and other in units:
            for score, sign in (("accuracy", 1), ("loss", -1)):
                first = {i: sign * unit["looks"][-1]["last"][score] for i, unit in units[one].items()}
                second = {i: sign * unit["looks"][-1]["last"][score] for i, unit in units[other].items()}
                lines.append({"what": f"{one} → {other}", "score": score, **agreement(first, second)})
    return lines


def difference(one: dict[int, Any], other: dict[int, Any], reference: dict[int, float]) -> dict[str, Any]:
    """By how much one way's accuracy has another tau than the other's, over the same networks, with its 90 % interval."""
    both = np.array(sorted(one.keys() & other.keys() & reference.keys()))
    first, second = (np.array([unit[i]["looks"][-1]["last"]["accuracy"] for i in both]) for unit in (one, other))
    full = np.array([reference[i] for i in both])
    source = np.random.default_rng(0)

    def gain(rows: np.ndarray) -> float:
        return float(kendalltau(first[rows], full[rows]).statistic - kendalltau(second[rows], full[rows]).statistic)

    drawn = [gain(source.integers(0, len(both), len(both))) for _ in range(1000)]
    low, high = np.quantile(drawn, (0.05, 0.95))
    return {
        "tau": round(gain(np.arange(len(both))), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "candidates": len(both),
        "accuracy_points": round(100 * float((first - second).mean()), 2),
    }


def agreement(values: dict[int, float], reference: dict[int, float]) -> dict[str, Any]:
    """Kendall's tau with its 90 % interval, over the networks that have both."""
    both = sorted(values.keys() & reference.keys())
    tau = rank_agreement([values[index] for index in both], [reference[index] for index in both])
    return {
        "tau": round(tau.tau or 0, 3),
        "low": round(tau.low or 0, 3),
        "high": round(tau.high or 0, 3),
        "candidates": tau.candidates,
    }


if __name__ == "__main__":
    main()
