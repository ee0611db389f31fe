"""How far a search's brief scores can be trusted: every rung against the next, and against the finalists' full training."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna

from nas.fidelity import Fidelity, RankAgreement, rank_agreement
from nas.outcomes import judged
from nas.sampling.history import CANDIDATE, RUNGS
from searchspace.architecture import Architecture, lower


@dataclass(frozen=True)
class RungFaithfulness:
    """What one rung was worth.

    Attributes:
        rung: how candidates were trained on it, as `parse_ladder` reads it.
        candidates: how many were.
        seconds: median of a candidate's training on it.
        to_next: how alike it ranks candidates as the next rung; the last one, as the finalists' full training.
        to_full: how alike it ranks the finalists as their full training.
        params_to_next: how alike the number of parameters ranks candidates as the next rung, for a rung without training.
    """

    rung: str
    candidates: int
    seconds: float | None
    to_next: RankAgreement
    to_full: RankAgreement
    params_to_next: RankAgreement | None = None

    @property
    def warning(self) -> str | None:
        """What to do about a score without training that ranks no better than the number of parameters."""
        if self.params_to_next is None or self.to_next.tau is None or self.params_to_next.tau is None:
            return None
        if self.to_next.tau > self.params_to_next.tau:
            return None
        return (
            f"{self.rung} ranks candidates no better than their number of parameters does (Kendall's tau {self.to_next.tau:.2f} "
            f"against {self.params_to_next.tau:.2f} with the next rung): leave it out of --rungs"
        )


def faithfulness(
    study: optuna.Study, ladder: Sequence[Fidelity], full: Mapping[str, float]
) -> tuple[RungFaithfulness, ...]:
    """What every rung of a study was worth.

    Args:
        study: the study.
        ladder: its rungs.
        full: accuracy of the finalists after full training, by fingerprint.
    """
    curves: dict[str, list[float]] = {}
    seconds: list[list[float]] = [[] for _ in ladder]
    params: dict[str, float] = {}
    for trial in judged(study):
        candidate, rungs = trial.user_attrs[CANDIDATE], trial.user_attrs[RUNGS]
        curves[candidate["fingerprint"]] = [rung["value"] for rung in rungs]
        params[candidate["fingerprint"]] = float(lower(Architecture.from_dict(candidate["architecture"])).params)
        for rung, score in enumerate(rungs):
            seconds[rung].append(score["seconds"])
    result = []
    for rung, fidelity in enumerate(ladder):
        scores = {name: curve[rung] for name, curve in curves.items() if len(curve) > rung}
        following = {name: curve[rung + 1] for name, curve in curves.items() if len(curve) > rung + 1}
        to_full = _agreement(scores, full)
        result.append(
            RungFaithfulness(
                rung=str(fidelity),
                candidates=len(scores),
                seconds=statistics.median(seconds[rung]) if seconds[rung] else None,
                to_next=_agreement(scores, following) if rung + 1 < len(ladder) else to_full,
                to_full=to_full,
                params_to_next=_agreement(params, following) if fidelity.zero_cost else None,
            )
        )
    return tuple(result)


def _agreement(one: Mapping[str, float], other: Mapping[str, float]) -> RankAgreement:
    both = [name for name in one if name in other]
    return rank_agreement([one[name] for name in both], [other[name] for name in both])
