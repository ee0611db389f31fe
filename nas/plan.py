"""What is searched, as plain data in the study itself: from it a worker on any machine knows all but the images.

The study holds the space, the rungs, the budget, the latency model, the recipe and where the search keeps its checkpoints. The
images are given where the worker runs, and must be the same.
"""

import functools
import hashlib
import json
import secrets
import tempfile
import zlib
from collections.abc import Callable, Mapping
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna

from latency.store import Predictor
from nas.candidates import CandidateTrainer
from nas.claims import worker_name
from nas.data import Data
from nas.errors import StudyError
from nas.fidelity import parse_ladder
from nas.joining import SEED_STRIDE, Note, StudyWork, wanted
from nas.limits import limit_from_dict, limit_to_dict, model_to_dict
from nas.mirror import Mirror
from nas.outcomes import progress
from nas.prediction import load_run_model
from nas.recipe import Recipe
from nas.run import Run
from nas.storage import IDENTITY, PLAN, base_name, failures_told, open_storage, require_format
from nas.urls import shown
from searchspace.errors import NasError
from searchspace.files import write_atomically
from searchspace.space import Space

PACKAGES = ("nas", "latency", "searchspace")
SHARED = "shared.json"


@functools.cache
def sources() -> str:
    """Fingerprint of the program's own sources: a checkout may be another one although its version is the same."""
    digest = hashlib.blake2b(digest_size=6)
    for package in PACKAGES:
        root = Path(str(resources.files(package)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@failures_told()
def publish(study: optuna.Study, work: StudyWork, run: Run) -> None:
    """Write into a study what others need to join it."""
    token = run.once("token", lambda: secrets.token_hex(8))
    folder = work.trainer.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SHARED, json.dumps({"token": token}).encode())
    plan = {
        "version": version("pocketnas"),
        "sources": sources(),
        "space": work.space.to_dict(),
        "model": model_to_dict(work.model),
        "budget_ms": work.budget_ms,
        "limits": [limit_to_dict(limit) for limit in work.limits],
        "recipe": work.trainer.recipe.to_dict(),
        "rungs": [str(fidelity) for fidelity in work.trainer.ladder],
        "score": work.trainer.score,
        "warm_start": work.trainer.warm_start,
        "seed": work.seed,
        "trials": work.trials,
        "pareto": work.pareto,
        "against": list(work.against),
        "reward": work.reward,
        "sampler": work.sampler,
        "stages": work.stages,
        "folder": str(folder),
        "checkpoints": None if work.trainer.mirror is None else shown(work.trainer.mirror.url),
        "token": token,
    }
    study.set_user_attr(PLAN, plan)


@failures_told()
def read_plan(url: str, name: str, on_wait: Note | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Identity and plan of a study, both plain data.

    Args:
        url: of the storage.
        name: of the study.
        on_wait: told when the storage is away and is waited for.

    Raises:
        StudyError: there is no such study, or one that this version cannot work on.
    """
    storage = open_storage(url, make=False, on_wait=on_wait)
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        names = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise StudyError(f"study {name!r} must be one of the storage's, there are: {names}; check --study") from None
    attributes = study.user_attrs
    identity, plan, here = attributes.get(IDENTITY, {}), attributes.get(PLAN), version("pocketnas")
    require_format(name, identity)
    if plan is None:
        raise StudyError(
            f"study {name!r} does not say what is searched; start `nas search --storage … --study …` first"
        )
    if plan.get("version") != here:
        raise StudyError(
            f"study {name!r} is of pocketnas {plan.get('version')}, this is {here}: all who work on a study need the same"
        )
    if plan.get("sources") != sources():
        raise StudyError(
            f"study {name!r} was begun with other sources of pocketnas {here} (fingerprint {plan.get('sources')}, here "
            f"{sources()}): all who work on a study need the same checkout"
        )
    return identity, plan


def join(
    url: str,
    name: str,
    load: Callable[[int, int], Data],
    *,
    out: Path | None = None,
    on_wait: Note | None = None,
) -> StudyWork:
    """The work on a study that a search published, for this process.

    Args:
        url: of the storage.
        name: of the study.
        load: reads the images at so many pixels a side, divided by the seed that is its second argument.
        out: where checkpoints go; None: the search's own folder where it is reachable here, else ``runs/worker-NAME``.
        on_wait: told when the storage is away and is waited for.

    Raises:
        StudyError: there is no such study, this version cannot work on it, the images are others, or the place for checkpoints
            cannot be used from here.
    """
    identity, plan = read_plan(url, name, on_wait)
    try:
        space, ladder = Space.from_dict(plan["space"]), parse_ladder(",".join(plan["rungs"]))
        if space.fingerprint != identity["space"]:
            raise StudyError(
                f"study {name!r}: its space must have fingerprint {identity['space']}, got {space.fingerprint}"
            )
        model = _read_model(plan["model"])
        limits = tuple(limit_from_dict(limit, _read_model) for limit in plan["limits"])
        recipe = Recipe.from_dict(plan["recipe"])
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(f"study {name!r}: what is searched is damaged ({error!r}); run the search again") from error
    pixels = dict.fromkeys([*space.resolution, *(rung.resolution for rung in ladder if rung.resolution)])
    data = {side: load(side, plan["seed"]) for side in pixels}
    found = [data[side].fingerprint for side in space.resolution]
    if found != identity["data"]:
        raise StudyError(
            f"study {name!r} is about images of fingerprint {', '.join(identity['data'])}, got {', '.join(found)}; "
            "give the same --data as the search"
        )
    searched = {key: value for key, value in identity.items() if key != "format"}
    mirror = Mirror(plan["checkpoints"]) if plan["checkpoints"] else None
    if mirror is not None:
        mirror.check()
        mirror.claim(searched)
    trainer = CandidateTrainer(
        data=data,
        recipe=recipe,
        ladder=ladder,
        folder=_folder(plan, identity, name, out),
        seed=plan["seed"],
        score=plan["score"],
        warm_start=plan["warm_start"],
        mirror=mirror,
    )
    return StudyWork(
        url=url,
        name=name,
        identity=searched,
        seed=plan["seed"] + SEED_STRIDE * (1 + zlib.crc32(worker_name().encode()) % 2**20),
        space=space,
        model=model,
        budget_ms=plan["budget_ms"],
        trainer=trainer,
        trials=plan["trials"],
        limits=limits,
        pareto=plan["pareto"],
        against=tuple(plan["against"]),
        reward=plan["reward"],
        sampler=plan["sampler"],
        stages=plan["stages"],
    )


@failures_told()
def others(study: optuna.Study) -> list[str]:
    """The other studies of the same search, of other limits: each with how far it is, those made last first."""
    storage, identity = study._storage, study.user_attrs.get(IDENTITY)
    told: list[str] = []
    for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
        name, attributes = summary.study_name, summary.user_attrs
        if name == study.study_name or attributes.get(IDENTITY) != identity or base_name(summary) != base_name(study):
            continue
        if PLAN in attributes:
            other = optuna.load_study(study_name=name, storage=storage)
            state = progress(other, wanted(other, 0))
            told.insert(0, f"{name} ({state.trained} of {state.wanted} trained)")
    return told


def _folder(plan: Mapping[str, Any], identity: Mapping[str, Any], name: str, out: Path | None) -> Path:
    """Where candidates' checkpoints go; one folder never holds those of two different searches."""
    token = {"token": plan["token"]}
    if out is None:
        shared = Path(plan["folder"])
        if _content(shared / SHARED) == token:
            return shared
        out = Path("runs") / f"worker-{name}"
    folder = out / "candidates"
    if _content(folder / SHARED) == token:
        return folder  # the search's, by another path
    mark, ours = out / "worker.json", {"identity": dict(identity)}
    if _content(mark) not in (None, ours):
        raise StudyError(f"{out}: holds checkpoints of another study; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"{out}: a worker needs a folder, it cannot be made ({error.strerror}); choose another --out"
        ) from None
    write_atomically(mark, json.dumps(ours).encode())
    return folder


def _content(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except OSError:
        return None
    except ValueError:
        return "damaged"


def _read_model(plain: Mapping[str, Any]) -> Predictor:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latency_model.json"
        path.write_text(json.dumps(plain), encoding="utf-8")
        try:
            return load_run_model(path)
        except NasError as error:
            raise StudyError(
                f"the study's latency model cannot be used here ({error}); use the search's version"
            ) from error
