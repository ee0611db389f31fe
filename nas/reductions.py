"""How far each trimming step goes: the schedule of NetAdapt (arXiv 1804.03230), a first reduction that decays step by step."""

import math
from dataclasses import dataclass, replace

from nas.errors import BudgetError

STEPS = 15  # to reach a budget where no first reduction is asked for
WITHOUT_BUDGET = 0.06  # of the start's latency: the first reduction where no budget in milliseconds limits the steps
LEAST = 1 / 3  # of the first reduction is asked of every step without a budget, so that all latencies are in reach


@dataclass(frozen=True)
class Reductions:
    """Each step shall save a little less than the one before: `first_ms`, then `first_ms · decay` and so on.

    How far the schedule is follows from the milliseconds that were saved, not from the number of steps: after steps that meet
    their goals exactly that is the same, and where steps save more or less than was asked for, the sum still reaches as far.

    Attributes:
        start_ms: of the untrimmed network.
        first_ms: what the first step shall save.
        decay: of that from step to step, in (0, 1].
        least_ms: what every step shall save at least.
    """

    start_ms: float
    first_ms: float
    decay: float
    least_ms: float = 0.0

    def goal_ms(self, now_ms: float) -> float:
        """What the next network may take, given what the present one takes."""
        saved_ms = max(self.start_ms - now_ms, 0.0)
        return now_ms - max(self.first_ms - (1 - self.decay) * saved_ms, self.least_ms)

    @property
    def total_ms(self) -> float:
        """What all steps together can save."""
        return self.first_ms / (1 - self.decay) if self.decay < 1 and not self.least_ms else math.inf


def parse_reduction(text: str) -> tuple[float, str]:
    """A first reduction: milliseconds as in ``0.5ms``, or a fraction of the start's latency as in ``0.025``.

    Raises:
        BudgetError: it is neither, or not above 0, or a fraction not below 1.
    """
    number, unit = (text[:-2], "ms") if text.endswith("ms") else (text, "share")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf or (unit == "share" and value >= 1):
        raise BudgetError(f"--step must be milliseconds (0.5ms) or a fraction of the start below 1, got {text!r}")
    return value, unit


def reductions(asked: str | None, *, decay: float, start_ms: float, budget_ms: float | None) -> Reductions:
    """The schedule of a run.

    Args:
        asked: see `parse_reduction`; None: such that the budget is reached in `STEPS` steps.
        decay: of the reduction from step to step, in (0, 1].
        start_ms: of the untrimmed network.
        budget_ms: where to, or None for as far as accuracy allows.

    Raises:
        BudgetError: all steps together cannot reach the budget.
    """
    if asked is not None:
        value, unit = parse_reduction(asked)
        schedule = Reductions(start_ms, value if unit == "ms" else value * start_ms, decay)
    elif budget_ms is None:
        schedule = Reductions(start_ms, WITHOUT_BUDGET * start_ms, decay)
    else:
        weight = sum(decay**step for step in range(STEPS))
        schedule = Reductions(start_ms, (start_ms - budget_ms) / weight, decay)
    if budget_ms is None:
        return replace(schedule, least_ms=LEAST * schedule.first_ms)
    if schedule.total_ms <= start_ms - budget_ms:
        raise BudgetError(
            f"{start_ms - budget_ms:.3g} ms must be saved, but a first reduction of {schedule.first_ms:.3g} ms with decay "
            f"{decay:g} saves {schedule.total_ms:.3g} ms at most: give a larger --step or --decay"
        )
    return schedule
