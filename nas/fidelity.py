"""How long candidates are trained before they are judged, and how far such brief scores can be trusted."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from nas.errors import StudyError
from nas.recipe import Schedule

BOOTSTRAP = 500
PAIRWISE = 500  # candidates at most for which all pairs are compared at once
Score = Literal["accuracy", "loss", "training-loss", "ema-accuracy"]
SCORES: tuple[Score, ...] = get_args(Score)
"""What candidates can be compared by after a rung: accuracy or loss on the validation split, the sum of the losses of all
training steps (Ru et al., arXiv 2006.04492), or the accuracy of an exponential moving average of the weights."""
ZeroCost = Literal["params", "macs", "synflow", "naswot"]
ZERO_COSTS: tuple[ZeroCost, ...] = get_args(ZeroCost)
"""What candidates can be compared by without training (see `nas.zero_cost`)."""

_RUNG = re.compile(r"(?P<amount>[0-9.]+)(?P<epochs>e)?(@(?P<resolution>[0-9]+))?(:(?P<schedule>\w+))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """One rung: how candidates are trained on it, starting from the weights of the rung before and on images not seen yet.

    A schedule of its own ranks better than a long one cut short, whose learning rate has not come down yet.

    Attributes:
        images: length, as a number of images. Exactly one of this, `epochs` and `zero_cost` is given.
        epochs: length, as passes through the training split; may be a fraction.
        resolution: pixels a side of the images, whatever the candidate's own resolution; None: that.
        schedule: of the learning rate on this rung.
        zero_cost: a score that needs no training.

    Raises:
        StudyError: a value is out of range.
    """

    images: int | None = None
    epochs: float | None = None
    resolution: int | None = None
    schedule: Schedule = "one_cycle"
    zero_cost: ZeroCost | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.images, self.epochs, self.zero_cost)) != 1:
            raise StudyError(f"a rung must have either images, epochs or a score without training, got {self!r}")
        if self.images is not None and self.images < 1:
            raise StudyError(f"a rung must have at least 1 image, got {self.images}")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise StudyError(f"a rung's epochs must be a finite number above 0, got {self.epochs}")
        if self.resolution is not None and self.resolution < 1:
            raise StudyError(f"a rung's resolution must be at least 1 pixel, got {self.resolution}")
        if self.schedule not in get_args(Schedule):
            raise StudyError(f"a rung's schedule must be one of {', '.join(get_args(Schedule))}, got {self.schedule!r}")
        if self.zero_cost is not None and self.zero_cost not in ZERO_COSTS:
            raise StudyError(f"a score without training must be one of {', '.join(ZERO_COSTS)}, got {self.zero_cost!r}")

    def length(self, split_images: int) -> int:
        """Images seen on this rung, given how many the training split has."""
        if self.epochs is not None:
            return max(1, round(self.epochs * split_images))
        return self.images or 0

    def __str__(self) -> str:
        """As `parse_ladder` reads it."""
        if self.zero_cost is not None:
            return self.zero_cost
        text = str(self.images) if self.epochs is None else f"{self.epochs:g}e"
        text += f"@{self.resolution}" if self.resolution else ""
        return text + ("" if self.schedule == "one_cycle" else f":{self.schedule}")


DEFAULT_LADDER = (Fidelity(images=5_000), Fidelity(images=15_000))


def parse_ladder(text: str) -> tuple[Fidelity, ...]:
    """Rungs from text, separated by commas.

    A rung is a number of images (``5000``) or of epochs (``0.5e``), where wanted with the pixels of the images (``5000@16``) and
    with a schedule (``5000:constant``). The first one may be a score that needs no training (``naswot,5000,15000``).

    Raises:
        StudyError: a rung is none of these.
    """
    ladder = tuple(_parse_rung(part.strip()) for part in text.split(","))
    if any(fidelity.zero_cost for fidelity in ladder[1:]) or ladder[-1].zero_cost:
        raise StudyError(f"only the first of several rungs may be a score without training, got {text!r}")
    return ladder


def parse_score(text: str) -> Score:
    """One of `SCORES`.

    Raises:
        StudyError: it is none of them.
    """
    for name in SCORES:
        if text == name:
            return name
    raise StudyError(f"candidates can be compared by {', '.join(SCORES)}, got {text!r}; choose another --score")


def _parse_rung(text: str) -> Fidelity:
    for name in ZERO_COSTS:
        if text == name:
            return Fidelity(zero_cost=name)
    found = _RUNG.fullmatch(text)
    amount = _number(found["amount"]) if found else None
    if found is None or not amount or (not found["epochs"] and amount != int(amount)):
        raise StudyError(
            "rungs must be whole numbers of images from 1, or epochs such as 0.5e, separated by commas; @16 after one sets its "
            f"pixels, :constant its schedule, and the first may be one of {', '.join(ZERO_COSTS)}; got {text!r}"
        )
    return Fidelity(
        images=None if found["epochs"] else int(amount),
        epochs=amount if found["epochs"] else None,
        resolution=int(found["resolution"]) if found["resolution"] else None,
        schedule=found["schedule"] or "one_cycle",  # type: ignore[arg-type]
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class RankAgreement:
    """Kendall's tau between two scores of the same candidates, with its 90 % bootstrap interval.

    All three are None where fewer than three candidates have both scores, or all have one score alike.
    """

    tau: float | None
    low: float | None
    high: float | None
    candidates: int


def rank_agreement(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> RankAgreement:
    """How alike two scores rank the same candidates; 1: alike, 0: not at all, −1: the other way round."""
    one, other = np.asarray(first, float), np.asarray(second, float)
    count = len(one)
    tau = _tau(one, other)
    if count < 3 or tau is None:
        return RankAgreement(None, None, None, count)
    source = np.random.default_rng(seed)
    drawn = [source.integers(0, count, count) for _ in range(BOOTSTRAP)]
    if count <= PAIRWISE:
        taus = _taus(one, other, np.array([np.bincount(rows, minlength=count) for rows in drawn], float))
    else:
        taus = np.array([value for rows in drawn if (value := _tau(one[rows], other[rows])) is not None])
    low, high = np.quantile(taus, (0.05, 0.95))
    return RankAgreement(tau, float(low), float(high), count)


def _taus(one: np.ndarray, other: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of every resample, given how many times each candidate was drawn: sums over all pairs, weighted by both."""
    first, second = (np.sign(side[:, None] - side[None, :]) for side in (one, other))

    def over_pairs(signs: np.ndarray) -> np.ndarray:
        summed: np.ndarray = ((times @ signs) * times).sum(1)
        return summed

    untied = over_pairs(first**2) * over_pairs(second**2)
    told = untied > 0
    taus: np.ndarray = over_pairs(first * second)[told] / np.sqrt(untied[told])
    return taus


def _tau(one: np.ndarray, other: np.ndarray) -> float | None:
    """Kendall's tau-b, None where one side has a single value."""
    from scipy.stats import kendalltau  # slow to load, and training does without

    if len(np.unique(one)) < 2 or len(np.unique(other)) < 2:
        return None
    return float(kendalltau(one, other).statistic)
