"""What a candidate must stay within beside the latency budget, known before it is trained; and what its accuracy is worth."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from latency.errors import UnmeasuredKernel
from nas.errors import StudyError
from searchspace.architecture import Architecture, lower

RewardKind = Literal["accuracy", "absolute", "soft"]
REWARDS: tuple[RewardKind, ...] = get_args(RewardKind)
ABSOLUTE = -0.1
"""TuNAS's default weight of the distance to the budget."""
SOFT = -0.07
"""MnasNet's exponent."""
BUDGET, ELSEWHERE = "latency", "latency on "
"""Names of limits on milliseconds: of the budget, and the begin of one on another target."""
OPTIONS = {
    BUDGET: "--budget-ms",
    "params": "--max-params",
    "weight_bytes": "--max-weight-bytes",
    "peak_bytes": "--max-peak-bytes",
}


def option_of(limit: str) -> str:
    """What sets the limit of that name on the command line."""
    return OPTIONS.get(limit) or f"--also {limit.removeprefix(ELSEWHERE)}"


@dataclass(frozen=True)
class Limit:
    """Something of a network that must not exceed a value.

    Attributes:
        name: of the constraint, such as ``params`` or ``latency on pixel``.
        most: the value, above 0.
        amount: what a network has of it; infinite where that is not known.
    """

    name: str
    most: float
    amount: Callable[[Architecture], float]

    def excess(self, architecture: Architecture) -> float:
        """By which share the network is above the limit; 0 or less: it is within."""
        return min(self.amount(architecture) / self.most - 1, 1e9)

    @property
    def option(self) -> str:
        """What sets it on the command line."""
        return option_of(self.name)

    @property
    def target(self) -> str | None:
        """The other target whose latency it limits; None where it limits something else."""
        return self.name.removeprefix(ELSEWHERE) if self.name.startswith(ELSEWHERE) else None

    def predicted_ms(self, architecture: Architecture) -> float | None:
        """Milliseconds of a network on that target; None where there is none, or they are not known."""
        if not isinstance(self.amount, _Latency):
            return None
        try:
            return self.amount.model.predict(architecture).ms
        except UnmeasuredKernel:
            return None

    def shown(self, amount: float) -> str:
        """An amount of it with its unit, for people."""
        if self.name == "params":
            return f"{amount:,.0f} parameters"
        return f"{amount:,.0f} bytes" if self.name in OPTIONS and self.name != BUDGET else f"{amount:.3g} ms"


def size_limits(
    *, params: int | None = None, weight_bytes: int | None = None, peak_bytes: int | None = None
) -> tuple[Limit, ...]:
    """Limits on parameters, on bytes of weights and on the most bytes of activations alive at once (batch 1, float32)."""
    wanted = {"params": params, "weight_bytes": weight_bytes, "peak_bytes": peak_bytes}
    return tuple(Limit(name, most, SIZES[name]) for name, most in wanted.items() if most is not None)


def _params(architecture: Architecture) -> float:
    return lower(architecture).params


def _weight_bytes(architecture: Architecture) -> float:
    return lower(architecture).weights_bytes


def _peak(architecture: Architecture) -> float:
    return lower(architecture).peak_activation_bytes


SIZES: Mapping[str, Callable[[Architecture], float]] = {
    "params": _params,
    "weight_bytes": _weight_bytes,
    "peak_bytes": _peak,
}


class Prediction(Protocol):
    """Milliseconds of a network: expected, and the lower end of the interval that is likely to hold them."""

    @property
    def ms(self) -> float: ...
    @property
    def low_ms(self) -> float: ...


class Model(Protocol):
    """A latency model."""

    def predict(self, architecture: Architecture) -> Prediction: ...


@dataclass(frozen=True)
class _Latency:
    """Milliseconds on another target; a function that can be sent to another process."""

    model: "Model"

    def __call__(self, architecture: Architecture) -> float:
        try:
            return self.model.predict(architecture).low_ms
        except UnmeasuredKernel:
            return math.inf


def latency_limit(target: str, most_ms: float, model: "Model") -> Limit:
    """A limit on the latency on another target; a network that its model cannot predict is beyond it."""
    return Limit(f"{ELSEWHERE}{target}", most_ms, _Latency(model))


def limit_to_dict(limit: Limit) -> dict[str, object]:
    """A limit as plain data, with the latency model of one on another target (without what the model was fitted to)."""
    model = limit.amount.model if isinstance(limit.amount, _Latency) else None
    return {"name": limit.name, "most": limit.most, "model": None if model is None else model_to_dict(model)}


def limit_from_dict(data: Mapping[str, Any], read_model: Callable[[Mapping[str, Any]], "Model"]) -> Limit:
    """A limit from plain data; `read_model` makes a latency model of its own."""
    if data["model"] is not None:
        return Limit(data["name"], data["most"], _Latency(read_model(data["model"])))
    [limit] = size_limits(**{data["name"]: data["most"]})
    return limit


def model_to_dict(model: Any) -> dict[str, object]:
    """A latency model as plain data, enough to predict with."""
    plain: dict[str, object] = model.as_json()
    return plain | {"measurements": []} if "measurements" in plain else plain


@dataclass(frozen=True)
class Reward:
    """What a study of one objective maximises, a function of accuracy and latency.

    Attributes:
        kind: `accuracy` alone; `absolute`: accuracy − 0.1 · |ms ÷ budget − 1|, networks near the budget first (TuNAS);
            `soft`: accuracy · (ms ÷ budget)^−0.07, faster is a little better (MnasNet).
        budget_ms: milliseconds a network may take.

    Raises:
        StudyError: there is no such kind.
    """

    kind: RewardKind = "accuracy"
    budget_ms: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in REWARDS:
            raise StudyError(f"the reward must be one of {', '.join(REWARDS)}, got {self.kind!r}")

    def of(self, accuracy: float, ms: float) -> float:
        """The reward."""
        return self.slope(ms) * accuracy + self.offset(ms)

    def slope(self, ms: float) -> float:
        """By what accuracy counts."""
        return float((ms / self.budget_ms) ** SOFT) if self.kind == "soft" else 1.0

    def offset(self, ms: float) -> float:
        """What is added to it."""
        return ABSOLUTE * abs(ms / self.budget_ms - 1) if self.kind == "absolute" else 0.0


def require_reward(reward: RewardKind, *, score: str, pareto: bool) -> None:
    """Refuses what a reward means nothing for: scores that are no share of images, and a front, which has no one objective.

    Raises:
        StudyError: the reward is not accuracy alone and cannot be combined with the score, or with `pareto`.
    """
    if reward == "accuracy":
        return
    if pareto:
        raise StudyError(
            f"--reward {reward} needs a search for one best network, got --pareto, which weighs nothing: leave one of them out"
        )
    if not score.endswith("accuracy"):
        raise StudyError(
            f"--reward {reward} weighs accuracy against latency, got --score {score}, which is on another scale: give --score "
            "accuracy or ema-accuracy, or leave --reward out"
        )
