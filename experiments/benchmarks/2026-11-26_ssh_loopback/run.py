"""Whether a latency model profiled over ssh says the same as the host's own, where both are one machine.

Three profiles of the same 48 networks take turns, 24 networks at a time: the host, the host again, and the host over a real
sshd on loopback. What the two host models differ by is the noise that the third is held to.

    python -m experiments.benchmarks.2026-11-26_ssh_loopback.run WORKING_FOLDER
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from experiments.record import write_record
from latency.model import LatencyModel
from latency.profiling import profile_target, report
from latency.target import load_target
from nas.prediction import space_architectures
from searchspace.architecture import Architecture
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space
from tests.latency.sshd import open_sshd

NETWORKS, ROUND = 48, 24
PREDICTED = 500


def main(folder: Path) -> None:
    space = load_space("default").adapt(channels=3, classes=10, resolution=32)
    (folder / "sshd").mkdir(parents=True, exist_ok=True)
    server = open_sshd(folder / "sshd")
    try:
        host = load_target("host")
        targets = {
            "host": host,
            "host again": dataclasses.replace(host, name="host-again"),
            "ssh": load_target(server.target_file(folder / "ssh-loopback.yaml", name="ssh-loopback")),
        }
        block = host.open().describe().nchwc_block
        models: dict[str, LatencyModel] = {}
        wall_s = dict.fromkeys(targets, 0.0)
        for networks in range(ROUND, NETWORKS + 1, ROUND):
            for name, target in targets.items():
                began = time.monotonic()
                models[name] = profile_target(
                    target, space_architectures(space, nchwc_block=block), networks=networks, folder=folder
                )
                wall_s[name] += time.monotonic() - began
                print(networks, name, f"{wall_s[name]:.0f} s", flush=True)
    finally:
        server.cut()
    source = RandomSuggest(1)
    unseen = [space.sample(source) for _ in range(PREDICTED)]
    rows: list[dict[str, Any]] = [
        {"model": name, **report(model), "wall_seconds": round(wall_s[name], 1)} for name, model in models.items()
    ]
    for name in ("host again", "ssh"):
        rows.append({"compared": [name, "host"], **compared(models[name], models["host"], unseen)})
    measured = {
        name: {one.architecture.fingerprint: one for one in model.measurements} for name, model in models.items()
    }
    for fingerprint in measured["host"]:
        alike = {name: known[fingerprint].timing for name, known in measured.items() if fingerprint in known}
        ms = {name: round(timing.low_ms, 6) for name, timing in alike.items()}
        load = {name: timing.load for name, timing in alike.items()}
        rows.append({"network": fingerprint, "ms": ms, "load": load})
    for architecture in unseen:
        ms = {name: round(model.predict_ms(architecture), 6) for name, model in models.items()}
        rows.append({"unseen": architecture.fingerprint, "predicted_ms": ms})
    write_record(Path(__file__).parent / "result.jsonl", rows)
    for row in rows[:5]:
        print(row)


def compared(one: LatencyModel, base: LatencyModel, unseen: list[Architecture]) -> dict[str, Any]:
    """How two models differ: in what was measured of the same networks, and in what they predict of unseen ones."""
    measured = np.array(list(pairs(one, base)))
    predicted = np.array([(one.predict_ms(architecture), base.predict_ms(architecture)) for architecture in unseen])
    return {"measured": differences(measured), "predicted": differences(predicted)}


def pairs(one: LatencyModel, base: LatencyModel) -> Iterator[tuple[float, float]]:
    known = {part.architecture.fingerprint: part.ms for part in base.measurements if part.trusted}
    for part in one.measurements:
        if part.trusted and part.architecture.fingerprint in known:
            yield part.ms, known[part.architecture.fingerprint]


def differences(ms: np.ndarray[Any, Any]) -> dict[str, float | int]:
    ratio = ms[:, 0] / ms[:, 1]
    apart = np.abs(ratio - 1)
    return {
        "n": len(ms),
        "median_ratio": round(statistics.median(ratio.tolist()), 4),
        "median_difference": round(float(np.median(apart)), 4),
        "p95_difference": round(float(np.quantile(apart, 0.95)), 4),
        "spearman": round(float(spearmanr(ms[:, 0], ms[:, 1]).statistic), 4),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
