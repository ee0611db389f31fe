"""A latency model that was fitted to published figures: what a target says of a network where there is no device.

Its interval is the error on families of networks that it was not fitted to. Two things make it wider, by rules of thumb rather
than by evidence: kinds of ops that stood in no published network are charged like all others by what they compute and move, and
may take `UNPUBLISHED` times more or less; and beyond the range of published latencies each tenfold adds a factor `BEYOND`.
Arithmetic that none of the five terms stands for (attention, SiLU, GELU, where no published network had them) is refused.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from latency.errors import ModelError, UnmeasuredKernel
from latency.fitting import Accuracy, accuracy
from latency.model import Prediction
from latency.published.figures import figures, newest_runtime
from latency.published.fitting import fit, judge
from latency.published.terms import Quantities, quantities
from latency.settings import Precision
from latency.target import Basis
from searchspace.architecture import Architecture, lower, lower_block, lower_head
from searchspace.blocks import Block, Head
from searchspace.files import write_atomically
from searchspace.graph import Norm, Op, Shape

FORMAT = 1
UNPUBLISHED = 2.0
BEYOND = 2.0
DIGITS = 6  # significant ones in the file
COMPUTED = "linear model"  # what a source is called whose figures were computed, not timed

Costs = Mapping[str, float]
BlockCosts = Callable[[Block, Shape, Norm | None], Costs]
HeadCosts = Callable[[Head, Shape, int, Norm | None], Costs]


@dataclass(frozen=True)
class Family:
    """How a family of networks was predicted from the others: median relative error over `n` figures."""

    median_error: float
    n: int


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """Predicts latencies from published ones.

    Attributes:
        target: the target's name.
        precision: of the networks whose latencies were published.
        weights: milliseconds per unit of each term (see `latency.published.terms`).
        scales: how much slower than the newest runtime, which predictions are for, each runtime is.
        published: kinds of ops that the published networks have.
        low: published ÷ predicted that one in twenty figures of unseen families stays below.
        high: that one in twenty exceeds.
        least_ms: the shortest published latency, by the newest runtime.
        most_ms: the longest.
        held_out: how figures of unseen families were predicted.
        families: the same by family.
        sources: where the figures were published, and how many of each.
        timed: as `held_out`, of figures that were timed, where others were computed by a published model; None: all were timed.
    """

    basis: ClassVar[Basis] = "published"

    target: str
    precision: Precision
    weights: Mapping[str, float]
    scales: Mapping[str, float]
    published: frozenset[str]
    low: float
    high: float
    least_ms: float
    most_ms: float
    held_out: Accuracy
    families: Mapping[str, Family]
    sources: Mapping[str, int]
    timed: Accuracy | None = None

    def predict(self, architecture: Architecture) -> Prediction:
        """The architecture's latency.

        Raises:
            UnmeasuredKernel: it needs arithmetic that no published network has.
        """
        kinds = dict(self.by_kind(architecture))
        ms = sum(kinds.values())
        unpublished_ms = sum(cost for name, cost in kinds.items() if name not in self.published)
        decades = math.log10(max(self.least_ms / ms, ms / self.most_ms, 1.0)) if ms > 0 else 0.0
        wider = BEYOND**decades
        low_ms = (ms - unpublished_ms + unpublished_ms / UNPUBLISHED) * self.low / wider
        high_ms = (ms - unpublished_ms + unpublished_ms * UNPUBLISHED) * self.high * wider
        return Prediction(ms, low_ms, high_ms, self.basis)

    def predict_ms(self, architecture: Architecture) -> float:
        """Milliseconds alone."""
        return sum(cost for _, part in self._parts(architecture) for cost in part.values())

    def explain(self, architecture: Architecture) -> tuple[tuple[str, float], ...]:
        """Milliseconds of each block (``blocks.3``) and of the ``head``; they add up."""
        return tuple((name, sum(part.values())) for name, part in self._parts(architecture))

    def by_kind(self, architecture: Architecture) -> tuple[tuple[str, float], ...]:
        """Milliseconds of each kind of op, the largest first; they add up."""
        total: dict[str, float] = {}
        for _, part in self._parts(architecture):
            for name, cost in part.items():
                total[name] = total.get(name, 0.0) + cost
        return tuple(sorted(total.items(), key=lambda item: -item[1]))

    def unpublished(self, architecture: Architecture) -> tuple[str, ...]:
        """The architecture's kinds of ops that stood in no published network, the slowest first."""
        return tuple(name for name, _ in self.by_kind(architecture) if name not in self.published)

    def doubts(self, architecture: Architecture) -> tuple[str, ...]:
        """Why the interval of this architecture is wide, if it is: what makes it so is a rule of thumb."""
        told = []
        if kinds := self.unpublished(architecture):
            told.append(f"no network published for {self.target} has {', '.join(kinds)}")
        ms = self.predict_ms(architecture)
        if not self.least_ms <= ms <= self.most_ms:
            told.append(
                f"latencies published for {self.target} range from {self.least_ms:.3g} to {self.most_ms:.3g} ms"
            )
        return tuple(told)

    @property
    def remark(self) -> str:
        """What the figures are worth and how to replace them, in one line."""
        phone = (
            "pixel" if self.precision == "fp32" else f"pixel-{self.precision}"
        )  # the targets that measure on such a phone
        figures, error = f"{self.held_out.n} published latencies", f"{self.held_out.median_error:.1%}"
        if self.timed is not None:
            computed = " and ".join(source.partition(":")[0] for source in self.sources if COMPUTED in source)
            figures = (
                f"{self.timed.n} published latencies and {self.held_out.n - self.timed.n} by {computed}'s {COMPUTED}"
            )
            error += f" ({self.timed.median_error:.1%} where timed)"
        return (
            f"{self.target} ({self.precision}) is predicted from {figures}, not measured: median error {error} on families of "
            f"networks left out; to measure instead, connect the phone, then `nas targets install {phone} --build` and "
            f"`nas profile --target {phone}`"
        )

    def __getstate__(self) -> dict[str, Any]:
        """What it consists of, without its caches: they hold functions, and models are sent to other processes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def block_costs(self) -> BlockCosts:
        """Function of a block, its input's shape and the normalisation: milliseconds of each kind of op; cached."""

        @lru_cache(maxsize=1 << 17)
        def costs(block: Block, shape: Shape, norm: Norm | None) -> Costs:
            return self._costs(lower_block(block, shape, norm))

        return costs

    @cached_property
    def head_costs(self) -> HeadCosts:
        """Function of a head, its input's shape, the number of classes and the normalisation; cached."""

        @lru_cache(maxsize=1 << 12)
        def costs(head: Head, shape: Shape, classes: int, norm: Norm | None) -> Costs:
            return self._costs(lower_head(head, shape, classes=classes, norm=norm))

        return costs

    def _parts(self, architecture: Architecture) -> tuple[tuple[str, Costs], ...]:
        """Milliseconds by kind of op, of each block and of the head."""
        norm = architecture.norm
        parts = [
            (f"blocks.{index}", self.block_costs(block, shape, norm))
            for index, (block, shape) in enumerate(zip(architecture.blocks, architecture.shapes, strict=False))
        ]
        head = self.head_costs(architecture.head, architecture.shapes[-1], architecture.classes, norm)
        return (*parts, ("head", head))

    def _costs(self, ops: tuple[Op, ...]) -> Costs:
        found = quantities(ops)
        for name in found:
            if name not in self.published and not _moves_only(name):
                raise UnmeasuredKernel(
                    f"no network published for {self.target!r} has {name!r}, so its time there is not known: choose networks "
                    "without it, or a target that is measured"
                )
        return {name: self._ms(parts) for name, parts in found.items()}

    def _ms(self, parts: Quantities) -> float:
        return sum(self.weights[term] * value for term, value in parts.items())

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return {
            "format": FORMAT,
            "basis": self.basis,
            **{key: value for key, value in asdict(self).items() if key != "published"},
            "published": sorted(self.published),
        }

    def save(self, path: Path) -> None:
        """Writes the model, whole or not at all."""
        write_atomically(path, (json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n").encode())

    @staticmethod
    def from_json(plain: Mapping[str, Any], where: str) -> "PublishedModel":
        """What `as_json` wrote.

        Raises:
            ModelError: it is damaged, or of another format.
        """
        if plain.get("format") != FORMAT:
            raise ModelError(f"{where}: format must be {FORMAT}, got {plain.get('format')!r}")
        try:
            values = {key: value for key, value in plain.items() if key not in ("format", "basis")}
            return PublishedModel(
                **{
                    **values,
                    "published": frozenset(values["published"]),
                    "held_out": Accuracy(**values["held_out"]),
                    "timed": Accuracy(**values["timed"]) if values.get("timed") else None,
                    "families": {name: Family(**family) for name, family in values["families"].items()},
                }
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{where}: the model of published latencies is damaged ({error!r})") from error


def fit_published(target: str, precision: Precision) -> PublishedModel:
    """The model of a target, fitted to `figures.yaml`.

    Raises:
        ModelError: nothing was published for the target.
    """
    found, newest = figures(target), newest_runtime(target)
    fitted, judged = fit(found, newest), judge(found, newest)
    scales = {runtime: _rounded(scale) for runtime, scale in fitted.scales.items()}
    latencies = [figure.ms / scales[figure.runtime] for figure in found]
    sources = [figure.source for figure in found]
    direct = [index for index, figure in enumerate(found) if figure.standing != "derived"]
    timed = accuracy(
        np.array([judged.predicted_ms[index] for index in direct]), np.array([found[index].ms for index in direct])
    )
    return PublishedModel(
        target=target,
        precision=precision,
        weights={term: _rounded(weight) for term, weight in fitted.weights.items()},
        scales=scales,
        published=frozenset(name for figure in found for name in quantities(lower(figure.architecture).ops)),
        low=_rounded(min(judged.low, 1.0)),
        high=_rounded(max(judged.high, 1.0)),
        least_ms=_rounded(min(latencies)),
        most_ms=_rounded(max(latencies)),
        held_out=_rounded_accuracy(judged.held_out),
        families={name: Family(_rounded(error), n) for name, (error, n) in judged.families.items()},
        sources={source: sources.count(source) for source in dict.fromkeys(sources)},
        timed=_rounded_accuracy(timed) if len(direct) < len(found) else None,
    )


def shipped_model(target: str) -> PublishedModel:
    """The model of a target that comes with the package.

    Raises:
        ModelError: there is none.
    """
    file = resources.files("latency.published") / "models" / f"{target}.json"
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"no model of published latencies is shipped for {target!r}: its target file must say basis: measured"
        ) from None
    return PublishedModel.from_json(plain, f"{target}.json")


def _moves_only(kind: str) -> bool:
    """Whether the five terms stand for all that this kind of op does."""
    return kind not in ("attention", "activation silu", "activation gelu", "activation sigmoid")


def _rounded_accuracy(found: Accuracy) -> Accuracy:
    return replace(found, **{key: _rounded(value) for key, value in found.as_json().items() if key != "n"})  # type: ignore[arg-type]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
