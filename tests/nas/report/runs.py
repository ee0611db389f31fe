"""Folders of runs as the commands leave them, made without training: real architectures, checkpoints, studies and models."""

import dataclasses
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import optuna

from latency.fake import FakeDevice
from latency.model import LatencyModel
from latency.profiling import profile_target
from latency.target import load_target
from nas.checkpoint import Checkpoint, save_checkpoint
from nas.compression.container import save_compressed
from nas.compression.magnitude import Pruned, layers, masks
from nas.compression.sharing import share
from nas.costs import costs_of
from nas.deployment import random_checkpoint
from nas.sampling.history import CANDIDATE, COSTS, OUTCOME, RUNGS
from nas.storage import STUDY_FILE, open_study
from searchspace.architecture import Architecture, lower
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space
from searchspace.width import set_width, widths
from tests.latency.profiled import QUICK

SPACE = load_space("default").adapt(channels=3, classes=10, resolution=32)
MODELLED = 40  # networks


def architectures(count: int) -> list[Architecture]:
    return [SPACE.sample(RandomSuggest(seed)) for seed in range(count)]


@cache
def latency_model() -> LatencyModel:
    """A model of the space's networks, fitted to what a pretended device measured of them."""
    with tempfile.TemporaryDirectory() as folder:
        return profile_target(
            load_target("host"),
            architectures(MODELLED),
            networks=MODELLED,
            device=FakeDevice(),
            effort=QUICK,
            folder=Path(folder),
        )


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def search_run(folder: Path, *, finished: bool = True, study_name: str = "search", costs: tuple[str, ...] = ()) -> Path:
    """A search of six candidates, three of them finalists, one of these dominated; trials tell costs where any are asked for."""
    (folder / "finalists").mkdir(parents=True)
    _json(folder / "run.json", {"format": 1, "kind": "search", "request": {"target": "host", "data": "d", "seed": 0}})
    latency_model().save(folder / "latency_model.json")
    candidates = architectures(6)
    study = open_study(f"sqlite:///{folder / 'study.db'}", study_name, identity={})
    _json(folder / STUDY_FILE, {"study": study_name})
    for index, architecture in enumerate(candidates):
        accuracy = 0.4 + 0.02 * index
        attributes = {
            OUTCOME: "pruned" if index == 5 else "complete",
            CANDIDATE: {
                "fingerprint": architecture.fingerprint,
                "predicted_ms": 0.1 * (index + 1),
                "low_ms": 0.09 * (index + 1),
                "high_ms": 0.11 * (index + 1),
                "architecture": architecture.to_dict(),
                COSTS: dict(costs_of(architecture, 0.1 * (index + 1), against=costs, limits=())),
            },
            RUNGS: [{"accuracy": accuracy, "loss": 1.5, "seconds": 1.0, "value": accuracy}],
        }
        study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs=attributes))
    entries = []
    for index, architecture in enumerate(candidates[:3]):
        path = folder / "finalists" / f"{architecture.fingerprint}.pt"
        curve = [{"images": 1000 * k, "training_loss": 1.0, "accuracy": 0.3 + 0.1 * k, "loss": 1.0} for k in (1, 2, 3)]
        checkpoint = random_checkpoint(architecture)
        save_checkpoint(path, dataclasses.replace(checkpoint, metrics={"accuracy": 0.6, "curve": curve}))
        graph = lower(architecture)
        entries.append(
            {
                "fingerprint": architecture.fingerprint,
                "accuracy": (0.6, 0.7, 0.65)[index],
                "brief_accuracy": 0.4 + 0.02 * index,
                "target_ms": 0.5,
                "predicted_ms": 0.1 * (index + 1),
                "low_ms": 0.09 * (index + 1),
                "high_ms": 0.11 * (index + 1),
                "measured_ms": None if index == 2 else 0.101 * (index + 1),
                "stable": True,
                "params": graph.params,
                "macs": graph.macs,
                "checkpoint": str(path),
            }
        )
    if finished:
        _json(
            folder / "result.json",
            {
                "run": str(folder),
                "study": study_name,
                "target": "host",
                "basis": "measured",
                "budget_ms": 0.5,
                "feasible_share": 0.5,
                "trials": {"complete": 5, "pruned": 1},
                "best": entries[1],
                "front": entries[:2],
                "finalists": entries,
                "rungs": [
                    {
                        "rung": "5000",
                        **{"tau": 0.8, "low": 0.4, "high": 1.0, "candidates": 3},
                        "full": {"tau": 0.6, "low": 0.1, "high": 1.0, "candidates": 3},
                    },
                    {"tau": None, "low": None, "high": None},
                ],
            },
        )
    return folder


def trimming_run(folder: Path, *, finished: bool = True) -> Path:
    """A trimming of two steps."""
    folder.mkdir(parents=True)
    _json(folder / "run.json", {"format": 1, "kind": "netadapt", "request": {"target": "host", "data": "d"}})
    networks = [architectures(1)[0]]
    for _ in range(2):
        last = networks[-1]
        widest = max(widths(last), key=lambda width: width.count)
        networks.append(set_width(last, widest, widest.count // 2))
    steps = []
    for number, architecture in enumerate(networks):
        name = f"step-{number:02}.pt"
        save_checkpoint(folder / name, random_checkpoint(architecture))
        step = {
            "step": number,
            "what": "start" if not number else "halved",
            "checkpoint": name,
            "fingerprint": architecture.fingerprint,
            "accuracy": 0.6 - 0.01 * number,
            "loss": 1.0,
            "predicted_ms": 0.3 - 0.05 * number,
            "measured_ms": None if number == 1 else 0.31 - 0.05 * number,
            "proposals": 7,
        }
        _json(folder / f"step-{number:02}.json", step)
        steps.append(step)
    if finished:
        _json(
            folder / "result.json",
            {
                "checkpoint": str(folder / steps[-1]["checkpoint"]),
                "accuracy": 0.57,
                "start_accuracy": 0.6,
                "start_ms": 0.31,
                "measured_ms": 0.21,
                "predicted_ms": 0.2,
                "budget_ms": 0.22,
                "method": "netadapt",
                "steps": steps,
            },
        )
    return folder


def training_run(folder: Path, *, finished: bool = True) -> Path:
    """A training of three epochs."""
    folder.mkdir(parents=True)
    _json(folder / "run.json", {"format": 1, "kind": "train", "request": {"data": "d"}})
    curve = [{"images": 100 * k, "training_loss": 1.0, "accuracy": 0.2 * k, "loss": 1.0 / k} for k in (1, 2, 3)]
    if finished:
        save_checkpoint(folder / "network.pt", random_checkpoint(architectures(1)[0]))
        _json(folder / "result.json", {"accuracy": 0.6, "validation_accuracy": 0.61, "epochs": 3, "curve": curve})
    else:
        _json(folder / "curve.json", {"curve": curve})
    return folder


@cache
def compressed() -> tuple[Checkpoint, Checkpoint, dict[str, float]]:
    """A network pruned, the same with shared weights, and the densities of its layers."""
    start = random_checkpoint(architectures(1)[0])
    found = layers(start)
    densities = {layer.name: 0.4 for layer in found}
    Pruned(masks(start, densities)).apply(network := start.network())
    pruned = dataclasses.replace(start, state=network.state_dict(), metrics={"accuracy": 0.58})
    network = pruned.network()
    share(pruned, found, conv_bits=4, linear_bits=4).apply(network)
    return pruned, dataclasses.replace(start, state=network.state_dict(), metrics={"accuracy": 0.57}), densities


def compression_run(folder: Path, *, finished: bool = True) -> Path:
    """A compression of two rounds."""
    folder.mkdir(parents=True)
    asked = {"data": "d", "density": 0.4, "layer_densities": {"head.classifier": 0.9}, "rounds": 2}
    _json(folder / "run.json", {"format": 1, "kind": "compress", "request": asked})
    pruned, shared, densities = compressed()
    _json(folder / "choices.json", {"densities": densities})
    for number in (1, 2):
        save_checkpoint(folder / f"pruned-{number}.pt", pruned)
    if finished:
        save_checkpoint(folder / "shared.pt", shared)
        path = folder / "network.nasz"
        sizes = save_compressed(path, shared)
        written, dense = path.stat().st_size, sum(size.dense_bytes for size in sizes)
        _json(
            folder / "result.json",
            {
                "path": str(path),
                "bytes": written,
                "dense_bytes": dense,
                "ratio": dense / written,
                "accuracy_before": 0.6,
                "accuracy_pruned": 0.58,
                "accuracy_after": 0.57,
                "other_bytes": written - sum(size.bytes for size in sizes),
                "tensors": [dataclasses.asdict(size) for size in sizes],
            },
        )
    return folder
