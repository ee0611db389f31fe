"""A small space with decisions that exist only sometimes, its latency, and scores that some networks deserve more than others."""

from dataclasses import dataclass

from nas.study import Problem, RungScore
from nas.survey import Survey, survey
from searchspace.architecture import Architecture, lower
from searchspace.space import parse_space

SPACE = parse_space(
    """
    format: 1
    resolution: 16
    stem: {width: [8, 16], stride: 2}
    stages:
      - depth: [1, 2]
        width: [16, 24, 32]
        stride: 2
        blocks: {uib: {expansion: [2, 4], dw_start: [0, 3], dw_mid: [0, 3, 5]}, fire: {bypass: [none, identity, conv]}}
      - depth: [1, 2, 3]
        width: [24, 32, 48]
        blocks: {uib: {expansion: [2, 4], dw_start: [0, 3], dw_mid: [0, 3, 5]}, fire: {squeeze: [0.125, 0.5]}}
    """
).adapt(channels=1, classes=4)


@dataclass(frozen=True)
class Guess:
    ms: float

    @property
    def low_ms(self) -> float:
        return self.ms

    @property
    def high_ms(self) -> float:
        return self.ms


def predict(architecture: Architecture) -> Guess:
    return Guess(lower(architecture).macs / 1e6)


def score(architecture: Architecture, rung: int = 0) -> RungScore:
    """Wide and deep is good, and so are 5×5 kernels."""
    graph = lower(architecture)
    large = sum(getattr(block, "dw_mid", 0) == 5 for block in architecture.blocks)
    return RungScore(0.2 + 0.3 * (1 - 4000 / (4000 + graph.params)) + 0.03 * large + 0.02 * rung, 1.0, 0.0)


SURVEY: Survey = survey(SPACE, lambda architecture: predict(architecture).ms, samples=300)
BUDGET_MS = SURVEY.quantile_ms(0.5)


def problem(*, pareto: bool = False, rungs: int = 1, against: tuple[str, ...] = ("ms",)) -> Problem:
    return Problem(SPACE, predict, BUDGET_MS, score, rungs, pareto=pareto, against=against)
