"""The report of a search: its front, how its candidates did, how far brief scores and predictions could be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from latency.errors import UnmeasuredKernel
from latency.published.model import PublishedModel
from latency.store import Predictor
from nas.claims import DEATHS, DEATHS_AT_MOST, FAILED
from nas.correction import Correction
from nas.costs import MS, shown, title_of
from nas.errors import StudyError
from nas.finalists import notes_of
from nas.outcomes import ERROR
from nas.report import figures
from nas.report.content import Cell, Drawing, Figure, Page, Point, Section, Table
from nas.report.drawing import draw
from nas.report.reading import Folder, Json, number
from nas.sampling.history import CANDIDATE, OUTCOME, RUNGS, told_costs
from nas.storage import LIMITS, STUDY_FILE, failures_told, first_line, open_storage
from nas.urls import without_secrets


def search_page(folder: Folder) -> Page:
    """Everything that a search left, finished or not."""
    result, about, model = folder.result("the search"), folder.request, folder.latency_model()
    finalists = folder.objects(result, "finalists")
    name = study_name(folder)
    if result and result.get("study", name) != name:
        folder.remark(
            f"a search with other limits has not ended: its candidates are shown (study `{name}`), and the front before"
        )
    studied = _studied(folder, name)
    candidates = folder.part("Candidates", lambda: _candidate_rows(studied.trials)) or []
    factor = folder.part("Correction", lambda: _correction(folder, result)) or 1.0
    for doubt in folder.part("Doubts", lambda: list(result.get("doubts", []))) or []:
        folder.remark(f"predictions are rough here: {doubt}")
    sections = [
        *(folder.part("Front", lambda: _front(result, finalists)) or []),
        *(folder.part("Candidates", lambda: _candidates(candidates)) or []),
        *(folder.part("Failed", lambda: _failures(folder, studied.trials)) or []),
        *(folder.part("Rank fidelity", lambda: _agreement(result, finalists)) or []),
        *(folder.part("Latency model", lambda: error_section(model, finalists, factor=factor)) or []),
    ]
    networks, curves = folder.part("Networks", lambda: _networks(folder, finalists, model)) or ([], [])
    return Page(
        title=f"Search for {about.get('target', 'a device')}",
        facts=folder.part("Results", lambda: _facts(result, about, model, studied.limits)) or (),
        remarks=tuple(folder.remarks),
        sections=(*sections[:1], *curve_section(curves), *sections[1:]),
        networks=tuple(networks),
    )


def search_points(folder: Folder) -> list[Point]:
    """The front of a search; while there is none, what its candidates came to."""
    front = folder.objects(folder.result("the search"), "front")
    if front:
        return [Point(str(entry["fingerprint"]), "front", _latency(entry), entry["accuracy"]) for entry in front]
    return [
        Point(str(row["network"]), "briefly trained", row["ms"], row["accuracy"])
        for row in _candidate_rows(_studied(folder, study_name(folder)).trials)
    ]


def entry_label(entry: Json) -> str:
    """A finalist's name within figures."""
    return str(entry["fingerprint"])[:8]


def error_section(model: Predictor | None, entries: list[Json], *, factor: float = 1.0) -> list[Section]:
    """How the latency model did, on what it was fitted to and on the run's own networks, predicted as told ÷ `factor`."""
    if model is None:
        return []
    rows = []
    for measurement in () if isinstance(model, PublishedModel) else model.measurements:
        try:
            error = model.predict_ms(measurement.architecture) / measurement.ms - 1
        except UnmeasuredKernel:
            continue
        rows.append(
            {
                "network": measurement.architecture.fingerprint,
                "ms": measurement.ms,
                "error": error,
                "which": "fitted to (in sample)",
            }
        )
    for entry in entries:
        if entry.get("measured_ms") and entry.get("predicted_ms"):
            error = entry["predicted_ms"] / factor / entry["measured_ms"] - 1
            rows.append(
                {"network": entry["fingerprint"], "ms": entry["measured_ms"], "error": error, "which": "this run's"}
            )
    held_out = model.held_out
    text = (
        f"Networks that the model was not fitted to: {held_out.within_5:.0%} within ±5 %, {held_out.within_10:.0%} within "
        f"±10 %, median error {held_out.median_error:.1%} (n = {held_out.n}). Drawn are those that it was "
        "fitted to, which flatters it, and this run's own; dashed: ±10 %."
    )
    if isinstance(model, PublishedModel):
        text = model.remark
    title = "Error of predicted milliseconds"
    alternative = f"Predicted ÷ measured − 1 for {len(rows)} networks. {text}"
    figure = Figure("latency-error", title, alternative, figures.errors(rows)) if rows else None
    return [Section("Latency model", text, figure)]


def curve_section(rows: Sequence[Json]) -> list[Section]:
    """Learning curves, from rows with `network, images, accuracy, loss`."""
    if not rows:
        return []
    title = "Accuracy while training"
    alternative = f"Validation accuracy of {len({row['network'] for row in rows})} networks by the images trained on."
    return [Section("Learning curves", figure=Figure("curves", title, alternative, figures.curves(rows)))]


def _facts(result: Json, about: Json, model: Predictor | None, limits: Json) -> tuple[tuple[str, str], ...]:
    best = result.get("best")
    trials = result.get("trials", {})
    basis = result.get("basis", model.basis if model is not None else "unknown")
    facts = [
        ("target", f"{about.get('target', '–')} ({basis})"),
        ("budget", f"{number(result.get('budget_ms', about.get('budget_ms')))} ms"),
    ]
    if best:
        facts.insert(0, ("best within the budget", f"{best['accuracy']:.1%} at {number(_latency(best))} ms"))
    for name, most in limits.items():
        if name != "budget_ms":
            facts.append((name.replace("_", " "), f"at most {most:,}{' ms' if name.startswith('latency') else ''}"))
    if trials:
        facts.append(
            ("candidates", ", ".join(f"{count} {outcome}" for outcome, count in trials.items() if count) or "none")
        )
    if (against := result.get("against", [MS])) != [MS]:
        facts.append(("accuracy is weighed against", ", ".join(map(title_of, against))))
    if result.get("redraws"):
        facts.append(("drawn again instead of tried", f"{result['redraws']:,}"))
    if "feasible_share" in result:
        facts.append(("share of the space within the budget", f"{result['feasible_share']:.0%}"))
    return tuple(facts)


def _latency(entry: Json) -> float | None:
    """What was measured, else what was predicted."""
    value = entry.get("measured_ms")
    return value if value is not None else entry.get("predicted_ms")


def _cost(entry: Json, name: str) -> float | None:
    """What a finalist costs; milliseconds as measured where they are."""
    if name == MS:
        return _latency(entry)
    amount: float = entry["costs"][name]
    return amount


def _front(result: Json, finalists: list[Json]) -> list[Section]:
    if not finalists:
        return []
    on_front = {entry["fingerprint"] for entry in result.get("front", [])}
    against = result.get("against", [MS])
    first, others = against[0], [name for name in against if name not in (MS, "params")]
    rows, cells = [], []
    for entry in sorted(finalists, key=lambda entry: _cost(entry, first) or 0.0):
        where = "front" if entry["fingerprint"] in on_front else "behind it"
        rows.append(
            {
                "network": entry["fingerprint"],
                "ms": _latency(entry),
                "cost": _cost(entry, first),
                "predicted_ms": entry.get("predicted_ms"),
                "low_ms": entry.get("low_ms"),
                "high_ms": entry.get("high_ms"),
                "accuracy": entry["accuracy"],
                "where": where,
            }
        )
        unstable = entry.get("measured_ms") is not None and not entry.get("stable", True)
        measured = number(entry.get("measured_ms")) + " (unstable)" * unstable
        cells.append(
            (
                Cell(entry_label(entry), entry["fingerprint"]),
                Cell(f"{entry['accuracy']:.1%}"),
                Cell(number(entry.get("target_ms"))),
                Cell(
                    f"{number(entry.get('predicted_ms'))} ({number(entry.get('low_ms'))}–{number(entry.get('high_ms'))})"
                ),
                Cell(measured),
                Cell(f"{entry.get('params', 0) / 1e3:,.0f} k"),
                Cell(f"{entry.get('macs', 0) / 1e6:,.1f} M"),
                *(Cell(shown(name, entry["costs"][name])) for name in others),
                Cell(where),
            )
        )
    known = ("network", "accuracy", "budget ms", "predicted ms", "measured ms", "parameters", "MACs")
    cost = title_of(first)
    if first == MS:
        title, what = "Accuracy against latency", "milliseconds on the device. Bars: the latency model's interval, "
        what += f"{'corrected' if result.get('correction') else 'before it was measured'}; dashed: the budget"
        spec = figures.front(rows, budget_ms=result.get("budget_ms"), is_line=len(against) == 1)
    else:
        title, what = f"Accuracy against {cost}", cost
        spec = figures.front(rows, cost=cost, is_line=len(against) == 1)
    text = f"Accuracy on the validation split after full training, against {what}."
    if len(against) > 1:
        text += f" No other network is as accurate as one of the front at no more {', '.join(map(title_of, against))}."
    alternative = f"{title} of {len(rows)} fully trained networks, {len(on_front)} of them on the front."
    table = Table((*known, *map(title_of, others), "where"), tuple(cells))
    return [Section("Front", text, Figure("front", title, alternative, spec), table)]


@dataclass(frozen=True)
class _Studied:
    """What the study of a search says: what networks must stay within, by name, and its trials."""

    limits: Json
    trials: Sequence[FrozenTrial]


def _correction(folder: Folder, result: Json) -> float:
    """By what the finalists' predictions were multiplied, because those of the model were off; where they were, that is told."""
    if not result.get("correction"):
        return 1.0
    correction = Correction(**result["correction"])
    if not correction.factor > 0:
        raise ValueError(f"a correction by {correction.factor}")
    folder.remark(
        f"{correction}; the finalists were chosen again by that; their predictions are corrected, those of the candidates, "
        "of each stage and in the latency model's figure are as they were before"
    )
    return correction.factor


def _candidate_rows(trials: Sequence[FrozenTrial]) -> list[Json]:
    """The candidates that were trained on some rung."""
    rows: list[Json] = []
    for trial in trials:
        candidate, rungs = trial.user_attrs.get(CANDIDATE), trial.user_attrs.get(RUNGS)
        if candidate and rungs and rungs[-1]["accuracy"] is not None:  # a score without training has none
            rows.append(
                {
                    "network": candidate["fingerprint"],
                    "ms": candidate["predicted_ms"],
                    "costs": told_costs(candidate),
                    "accuracy": rungs[-1]["accuracy"],
                    "outcome": trial.user_attrs.get(OUTCOME, "in training"),
                    "rungs": len(rungs),
                }
            )
    return rows


def _candidates(rows: list[Json]) -> list[Section]:
    if not rows:
        return []
    first = next(iter(rows[0]["costs"]))
    cost = "predicted ms" if first == MS else title_of(first)
    points = [{**row, "cost": row["costs"][first]} for row in rows]
    alternative = f"Accuracy of {len(rows)} briefly trained candidates against {cost}."
    figure = Figure("candidates", "Candidates, briefly trained", alternative, figures.candidates(points, cost=cost))
    text = "What each candidate costs, known before it is trained, and how far brief training took it."
    return [Section("Candidates", text, figure)]


def _failures(folder: Folder, trials: Sequence[FrozenTrial]) -> list[Section]:
    """Candidates and finalists that could not be trained, and why."""
    failed = [trial.user_attrs for trial in trials if trial.user_attrs.get(OUTCOME) == FAILED]
    rows = [(str(attributes[CANDIDATE]["fingerprint"]), "candidate", _reason(attributes)) for attributes in failed]
    rows += [
        (path.stem, "finalist", path.read_text(encoding="utf-8").partition(";")[0])
        for path in sorted((folder.path / "finalists").glob("*.failed"))
    ]
    return [Section("Failed", table=Table.of(("network", "trained as", "why"), rows))] if rows else []


def _reason(attributes: Json) -> str:
    if ERROR in attributes:
        return str(attributes[ERROR])
    if attributes.get(DEATHS, 0) + 1 >= DEATHS_AT_MOST:
        return "every process that trained it died"
    return "the loss became infinite or not a number"


def study_name(folder: Folder) -> str:
    """The search's study, in its storage: the one that was opened last, finished or not."""
    told = folder.json(STUDY_FILE).get("study") or folder.json("result.json").get("study")
    return told if isinstance(told, str) else "search"


def _studied(folder: Folder, name: str) -> _Studied:
    """The study of that name, as far as it can be read: in the run's folder, else in the storage that was named."""
    database = folder.path / "study.db"
    url = f"sqlite:///{database}" if database.exists() else folder.storage
    if url is None:
        if folder.json(STUDY_FILE):
            folder.remark(
                "the candidates lie in the search's --storage, not in its folder: `nas report RUN --storage URL` shows them"
            )
        return _Studied({}, [])
    place = "study.db" if database.exists() else "the storage"
    try:
        with failures_told():
            study = optuna.load_study(study_name=name, storage=open_storage(url, make=False))
            return _Studied(study.user_attrs.get(LIMITS, {}), study.get_trials(deepcopy=False))
    except KeyError:
        reason = f"{place} has no study {name!r}"
    except (StudyError, optuna.exceptions.OptunaError) as error:
        reason = f"{place} cannot be read ({without_secrets(first_line(error), url)})"
    folder.remark(f"the candidates are left out: {reason}")
    return _Studied({}, [])


def _agreement(result: Json, finalists: list[Json]) -> list[Section]:
    """How alike the rungs ranked the candidates, and brief training the finalists."""
    rungs = [rung for rung in result.get("rungs", []) if rung]
    if not rungs:
        return []
    names = [
        f"rung {index + 1} ({rung['rung']})" if "rung" in rung else f"rung {index + 1}"
        for index, rung in enumerate(rungs)
    ]
    compared = [(f"{one} → {other}", rung) for one, other, rung in zip(names, names[1:], rungs, strict=False)]
    compared += [
        (f"{name} → full training", rung.get("full") or {}) for name, rung in zip(names[:-1], rungs, strict=False)
    ]
    compared.append((f"{names[-1]} → full training", rungs[-1]))
    rows = [
        (
            name,
            number(agreement.get("tau"), ".2f"),
            "–" if agreement.get("low") is None else f"{agreement['low']:.2f} to {agreement['high']:.2f}",
            str(agreement.get("candidates", "–")),
        )
        for name, agreement in compared
    ]
    points = [
        {"network": entry["fingerprint"], "brief": entry["brief_accuracy"], "accuracy": entry["accuracy"]}
        for entry in finalists
        if entry.get("brief_accuracy") is not None
    ]
    alternative = f"Accuracy after full against accuracy after brief training, {len(points)} networks."
    title = "Does brief training rank?"
    figure = Figure("agreement", title, alternative, figures.agreement(points)) if len(points) > 1 else None
    text = (
        "Kendall's tau between the scores of one rung and the next, and the finalists' accuracy after full training; "
        "1 means that they rank alike, 0 that they do not."
    )
    return [Section("Rank fidelity", text, figure, Table.of(("from → to", "tau", "90 % interval", "candidates"), rows))]


def _networks(folder: Folder, finalists: list[Json], model: Predictor | None) -> tuple[list[Drawing], list[Json]]:
    """Finalists drawn, and their learning curves; without a result, whatever finalists lie there."""
    known: list[tuple[Path, Json]] = [
        (folder.moved(entry["checkpoint"]), entry) for entry in finalists if isinstance(entry.get("checkpoint"), str)
    ]
    if not known:
        known = [(path, {}) for path in sorted((folder.path / "finalists").glob("*.pt"))]
    drawn: list[Drawing] = []
    curves: list[Json] = []
    for path, entry in known:
        checkpoint = folder.checkpoint(path)
        for note in notes_of(path):
            folder.remark(note)
        if checkpoint is None:
            continue
        metrics = checkpoint.metrics
        label = checkpoint.architecture.fingerprint[:8]
        curves += [{"network": label, **point} for point in metrics.get("curve", []) if isinstance(point, dict)]
        facts = [("accuracy", f"{metrics['accuracy']:.2%} (validation)")] if "accuracy" in metrics else []
        if entry:
            facts += [
                ("predicted", f"{number(entry.get('predicted_ms'))} ms"),
                ("measured", "not" if entry.get("measured_ms") is None else f"{number(entry['measured_ms'])} ms"),
            ]
        drawn.append(draw(checkpoint.architecture, model, facts=tuple(facts)))
    return drawn, curves
