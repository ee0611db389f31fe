"""What may be chosen about a trimming run, and the record of each of its steps."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from nas.choice import Rule
from nas.errors import BudgetError
from nas.recipe import Recipe
from nas.reductions import parse_reduction

Method = Literal["netadapt", "uniform"]
Criterion = Literal["l2", "taylor"]


class Events(Protocol):
    """What trimming tells whoever watches: remarks, and how far the work at hand is."""

    def note(self, message: str) -> None: ...
    def progress(self, what: str, done: int, total: int | None) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may be chosen about a trimming run; exactly one of the three limits is given.

    Attributes:
        budget_ms: milliseconds the network may take.
        budget_ratio: share of the start's measured latency it may take; in (0, 1).
        max_accuracy_drop: of validation accuracy, for the smallest network within it; in (0, 1).
        method: `netadapt`, or the baseline `uniform`.
        reduction: first step's, as `nas.reductions.parse_reduction` takes it; None: for about fifteen steps.
        decay: of the reduction from step to step, in (0, 1].
        rule: how a step's network is chosen (see `nas.choice`).
        importance: what decides which units go: `taylor` or `l2`.
        short: recipe of the fine-tunes that compare proposals.
        workers: processes that fine-tune side by side.
        measure_every: steps between measurements on the device.
        audit_every: every so many steps all proposals are tried to the end, dominated ones too, to see whether the choice is one
            that would not have been; 0: never.
        seed: everything random follows from it.
    """

    budget_ms: float | None = None
    budget_ratio: float | None = None
    max_accuracy_drop: float | None = None
    method: Method = "netadapt"
    reduction: str | None = None
    decay: float = 0.96
    rule: Rule = "accuracy"
    importance: Criterion = "taylor"
    short: Recipe
    workers: int = 1
    measure_every: int = 3
    audit_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("budget_ms", "budget_ratio", "max_accuracy_drop")}
        asked = {name: value for name, value in given.items() if value is not None}
        if len(asked) != 1:
            raise BudgetError(
                "exactly one limit is needed: --budget-ms, --budget-ratio or --max-accuracy-drop, "
                f"got {', '.join('--' + name.replace('_', '-') for name in asked) or 'none'}"
            )
        ((name, value),) = asked.items()
        if not 0 < value < (math.inf if name == "budget_ms" else 1):
            limits = "above 0" if name == "budget_ms" else "between 0 and 1"
            raise BudgetError(f"--{name.replace('_', '-')} must be {limits}, got {value:g}")
        for name, kinds in (("method", Method), ("rule", Rule), ("importance", Criterion)):
            if getattr(self, name) not in get_args(kinds):
                raise BudgetError(f"--{name} must be one of {', '.join(get_args(kinds))}, got {getattr(self, name)!r}")
        if self.method == "uniform" and self.max_accuracy_drop is not None:
            raise BudgetError("a width multiplier needs --budget-ms or --budget-ratio, got --max-accuracy-drop")
        if self.reduction is not None:
            parse_reduction(self.reduction)
        if not 0 < self.decay <= 1:
            raise BudgetError(f"--decay must be above 0 and at most 1, got {self.decay:g}")
        for name, least in (("workers", 1), ("measure_every", 1), ("audit_every", 0)):
            if getattr(self, name) < least:
                raise BudgetError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One network of the family; step 0 is the start.

    Attributes:
        step: its number.
        what: the change that made it, for people.
        checkpoint: its file's name in the run's folder.
        fingerprint: of its architecture.
        accuracy: on the validation split, after its short fine-tune.
        loss: there, nats.
        predicted_ms: by the model as it was then corrected.
        measured_ms: on the device, None where it was not measured; at the speed that it had when the start was measured.
        drift: what the start took on the device beside it ÷ what it took at first; None where nothing was measured.
        factor: device ÷ model that holds from here on.
        proposals: how many there were.
        dominated: of them, not tried since another one contained them.
        stopped: of them, stopped after the first look, untrained.
        audit: validation accuracy that skipping dominated proposals and stopping hopeless ones would have cost; None where it
            was not looked at.
        images: training images of all its short fine-tunes together; None where a version that did not count them made it.
        seconds: it took.
    """

    step: int
    what: str
    checkpoint: str
    fingerprint: str
    accuracy: float
    loss: float
    predicted_ms: float
    measured_ms: float | None
    factor: float
    proposals: int = 0
    dominated: int = 0
    stopped: int = 0
    audit: float | None = None
    images: int | None = None
    seconds: float = 0.0
    drift: float | None = None

    @property
    def ms(self) -> float:
        """The best known latency: what was measured, else what the model said."""
        return self.predicted_ms if self.measured_ms is None else self.measured_ms
