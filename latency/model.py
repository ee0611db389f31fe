"""The latency model of one target: milliseconds as a sum over kernels, fitted to whole networks, with its own error.

Because it is a sum it explains itself (milliseconds per block), can be tabulated, and composes; because it was fitted to whole
networks, each kernel counts as much as it does inside one. Every prediction comes with an interval that nine in ten unseen
networks fell into, and a kernel that was never measured is an error, never a silent zero.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from latency.errors import ModelError, UnmeasuredKernel
from latency.features import kind, measured_as, memory_quantities, quantities, weight_bytes
from latency.fitting import NETWORK, Accuracy, Array
from latency.kernel import Entry, Kernel
from latency.planning import block_plan, head_plan, kernels
from latency.provenance import Provenance
from latency.settings import RuntimeSettings
from latency.target import Basis
from latency.timing import Timing, held_to_one_speed
from latency.uncertainty import Uncertainty
from searchspace.architecture import Architecture, lower
from searchspace.blocks import Block, Head
from searchspace.files import write_atomically
from searchspace.graph import Norm, Shape

BlockCost = Callable[[Block, Shape, Entry, Norm | None], tuple[float, int, Entry]]
HeadCost = Callable[[Head, Shape, Entry, int, Norm | None], tuple[float, int]]

FORMAT = 5
MEMORY = "memory"  # what a network pays for having more weights than caches hold
BUSIEST = 0.5  # share of interrupted runs above which a measurement tells more of the others than of the network


@dataclass(frozen=True)
class Prediction:
    """A network's latency on a target without running it there.

    Attributes:
        ms: milliseconds.
        low_ms: lower end of the interval that holds nine of ten networks.
        high_ms: upper end.
        basis: whether the model was fitted to measurements on the device, or to published figures.
    """

    ms: float
    low_ms: float
    high_ms: float
    basis: Basis


@dataclass(frozen=True)
class Measurement:
    """A network and what was measured of it.

    Attributes:
        architecture: the network.
        timing: what was measured.
        scale: how much slower the device has become since, by later measurements (see `latency.renewal`).
    """

    architecture: Architecture
    timing: Timing
    scale: float = 1.0

    @property
    def ms(self) -> float:
        """Milliseconds it takes now, undisturbed."""
        return self.timing.low_ms * self.scale

    @property
    def trusted(self) -> bool:
        """Whether a model may be fitted to it: it is stable, and most runs had the core for themselves.

        Where most were interrupted, others used the caches as well, and networks measured up to a third too slow although their
        halves agreed. On one record of 45 published networks, measured beside other work, the median error was 4.1 % over all
        and 2.0 % over the 24 that this lets through. It does not notice others that keep to the other cores but fill the caches.
        """
        return self.timing.stable and self.timing.interrupted <= BUSIEST

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return {"architecture": self.architecture.to_dict(), "timing": self.timing.as_json(), "scale": self.scale}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Measurement":
        """What `as_json` wrote."""
        architecture, timing = Architecture.from_dict(plain["architecture"]), Timing.from_json(plain["timing"])
        return Measurement(architecture, timing, float(plain.get("scale", 1.0)))


def at_one_speed(measurements: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """The same measurements, those of one scale held to one full speed of the device: a slow phase may outlast a job."""
    found = list(measurements)
    for scale in {one.scale for one in found}:
        places = [index for index, one in enumerate(found) if one.scale == scale]
        for index, timing in zip(places, held_to_one_speed([found[index].timing for index in places]), strict=True):
            found[index] = replace(found[index], timing=timing)
    return tuple(found)


@dataclass(frozen=True)
class LatencyModel:
    """Predicts the latency of any architecture whose kinds of kernels were measured.

    Attributes:
        target: the target's name.
        settings: how networks ran.
        provenance: the device they ran on.
        weights: milliseconds per unit of each quantity (see `latency.features`), and of a network.
        measured: the kinds of kernels that were measured.
        uncertainty: how wide the interval of a prediction is.
        held_out: how it did on networks it was not fitted to.
        noise_p95: 95th percentile of the difference between two halves of a network's measurement: no model can do better.
        measurements: what it was fitted to.
        basis: where those come from.
        option: what ``--target`` takes to mean the target, for messages; not part of the model.
    """

    target: str
    settings: RuntimeSettings
    provenance: Provenance
    weights: Mapping[str, float]
    measured: frozenset[str]
    uncertainty: Uncertainty
    held_out: Accuracy
    noise_p95: float
    measurements: tuple[Measurement, ...]
    basis: Basis = "measured"
    option: str = field(default="", compare=False)

    def predict(self, architecture: Architecture) -> Prediction:
        """The architecture's latency.

        Raises:
            UnmeasuredKernel: it needs a kind of kernel that was never measured.
        """
        term_ms = self.term_ms(architecture)
        low_ms, high_ms = self.uncertainty.interval(term_ms)
        return Prediction(float(term_ms.sum()), low_ms, high_ms, self.basis)

    def term_ms(self, architecture: Architecture) -> Array:
        """(terms,) milliseconds of each term of the model's uncertainty; they add up to the prediction."""
        entry = Entry()
        norm = architecture.norm
        found = np.zeros(len(self.uncertainty.terms))
        weights = 0
        for block, shape in zip(architecture.blocks, architecture.shapes, strict=False):
            found += self._block_terms(block, shape, entry, norm)
            _, part_weights, entry = self.block_cost(block, shape, entry, norm)
            weights += part_weights
        head = (architecture.head, architecture.shapes[-1], entry, architecture.classes, norm)
        weights += self.head_cost(*head)[1]
        found += self._head_terms(*head) + self._terms(memory_quantities(weights))
        found[0] += self.weights[NETWORK]
        return found

    @cached_property
    def _block_terms(self) -> Callable[[Block, Shape, Entry, Norm | None], Array]:
        @lru_cache(maxsize=1 << 15)
        def terms(block: Block, shape: Shape, entry: Entry, norm: Norm | None) -> Array:
            return self._terms(self._quantities(self._block_plan(block, shape, entry, norm)[0]))

        return terms

    @cached_property
    def _head_terms(self) -> Callable[[Head, Shape, Entry, int, Norm | None], Array]:
        @lru_cache(maxsize=1 << 12)
        def terms(head: Head, shape: Shape, entry: Entry, classes: int, norm: Norm | None) -> Array:
            return self._terms(self._quantities(self._head_plan(head, shape, entry, classes, norm)))

        return terms

    def _terms(self, found: Mapping[str, float]) -> Array:
        return np.array([self.weights[name] * found.get(name, 0.0) for name in self.uncertainty.terms])

    def predict_ms(self, architecture: Architecture) -> float:
        """Milliseconds alone; some ten thousand architectures a second once their blocks have been met."""
        return sum(ms for _, ms in self.explain(architecture))

    def explain(self, architecture: Architecture) -> tuple[tuple[str, float], ...]:
        """Milliseconds by part, which add up: each block (``blocks.3``), the ``head``, ``memory``, and any ``network``."""
        entry = Entry()
        norm = architecture.norm
        parts = []
        weights = 0
        for index, (block, shape) in enumerate(zip(architecture.blocks, architecture.shapes, strict=False)):
            part_ms, part_weights, entry = self.block_cost(block, shape, entry, norm)
            weights += part_weights
            parts.append((f"blocks.{index}", part_ms))
        head_ms, head_weights = self.head_cost(
            architecture.head, architecture.shapes[-1], entry, architecture.classes, norm
        )
        memory_ms = self.memory_ms(weights + head_weights)
        return (*parts, ("head", head_ms), (MEMORY, memory_ms), (NETWORK, self.weights[NETWORK]))

    def by_kind(self, architecture: Architecture) -> tuple[tuple[str, float], ...]:
        """Milliseconds of each kind of kernel, of ``memory`` and of any ``network``, the largest first; they add up."""
        planned = kernels(
            lower(architecture), nchwc_block=self.provenance.nchwc_block, precision=self.settings.precision
        )
        parts = {NETWORK: self.weights[NETWORK], MEMORY: self.memory_ms(weight_bytes(planned))}
        for kernel in planned:
            parts[kind(kernel)] = parts.get(kind(kernel), 0.0) + self.kernels_ms((kernel,))
        return tuple(sorted(parts.items(), key=lambda part: -part[1]))

    def memory_ms(self, weights_bytes: float) -> float:
        """Milliseconds that a network with so many bytes of weights waits for those that no cache holds."""
        return sum(self.weights.get(name, 0.0) * value for name, value in memory_quantities(weights_bytes).items())

    def __getstate__(self) -> dict[str, Any]:
        """What it consists of, without its caches: they hold functions, and models are sent to other processes."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def block_cost(self) -> BlockCost:
        """Function of a block, its input's shape and state, and the normalisation.

        It returns milliseconds, bytes of weights, and its output's state.
        """

        @lru_cache(maxsize=1 << 17)
        def cost(block: Block, shape: Shape, entry: Entry, norm: Norm | None) -> tuple[float, int, Entry]:
            planned, leaves = self._block_plan(block, shape, entry, norm)
            return self.kernels_ms(planned), weight_bytes(planned), leaves

        return cost

    @cached_property
    def head_cost(self) -> HeadCost:
        """Function of a head, its input's shape and state, the number of classes and the normalisation.

        It returns milliseconds and bytes of weights.
        """

        @lru_cache(maxsize=1 << 12)
        def cost(head: Head, shape: Shape, entry: Entry, classes: int, norm: Norm | None) -> tuple[float, int]:
            planned = self._head_plan(head, shape, entry, classes, norm)
            return self.kernels_ms(planned), weight_bytes(planned)

        return cost

    def _block_plan(
        self, block: Block, shape: Shape, entry: Entry, norm: Norm | None
    ) -> tuple[tuple[Kernel, ...], Entry]:
        nchwc_block, precision = self.provenance.nchwc_block, self.settings.precision
        return block_plan(block, shape, entry, norm=norm, nchwc_block=nchwc_block, precision=precision)

    def _head_plan(self, head: Head, shape: Shape, entry: Entry, classes: int, norm: Norm | None) -> tuple[Kernel, ...]:
        nchwc_block, precision = self.provenance.nchwc_block, self.settings.precision
        return head_plan(head, shape, entry, classes=classes, norm=norm, nchwc_block=nchwc_block, precision=precision)

    def kernels_ms(self, planned: tuple[Kernel, ...]) -> float:
        """Milliseconds of some kernels within a network.

        Raises:
            UnmeasuredKernel: one of them is of a kind that was never measured.
        """
        return sum(self.weights.get(name, 0.0) * value for name, value in self._quantities(planned).items())

    def _quantities(self, planned: tuple[Kernel, ...]) -> dict[str, float]:
        for kernel in planned:
            for name in measured_as(kernel):
                if name not in self.measured:
                    raise UnmeasuredKernel(
                        f"the latency model of {self.target!r} knows every kernel but {name!r}, which was never measured: "
                        f"run `nas profile --target {self.option or self.target} --like ARCH` with the network that needs it"
                    )
        return quantities(planned, nchwc_block=self.provenance.nchwc_block)

    def require(self, provenance: Provenance, settings: RuntimeSettings) -> None:
        """Checks that the model was made for this device, runtime and way of running.

        Raises:
            ModelError: it was not; the message names the first difference.
        """
        here, there = provenance.key | settings.as_json(), self.provenance.key | self.settings.as_json()
        require_equal(self.option or self.target, here, there)

    def as_json(self) -> dict[str, object]:
        """Plain data, measurements included."""
        return {
            "format": FORMAT,
            "target": self.target,
            "basis": self.basis,
            "settings": self.settings.as_json(),
            "provenance": self.provenance.as_json(),
            "weights": dict(self.weights),
            "measured": sorted(self.measured),
            "uncertainty": self.uncertainty.as_json(),
            "held_out": self.held_out.as_json(),
            "noise_p95": self.noise_p95,
            "measurements": [measurement.as_json() for measurement in self.measurements],
        }

    def save(self, path: Path) -> None:
        """Writes the model, whole or not at all."""
        write_atomically(path, json.dumps(self.as_json(), indent=1).encode())

    @staticmethod
    def load(path: Path, *, remedy: str = "profile the target again") -> "LatencyModel":
        """The model in a file that `save` wrote.

        Args:
            path: of the file.
            remedy: what to do about a file that cannot be used, for the message.

        Raises:
            ModelError: there is none, it is damaged, or of another format.
        """
        try:
            plain = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: cannot be read as a latency model ({error}): {remedy}") from error
        found = plain.get("format") if isinstance(plain, dict) else None
        if found != FORMAT:
            raise ModelError(f"{path}: format must be {FORMAT}, got {found!r}: {remedy}")
        try:
            affinity = plain["settings"]["affinity"]
            weights = {name: float(value) for name, value in plain["weights"].items()}
            _ = weights[NETWORK]
            return LatencyModel(
                target=plain["target"],
                settings=RuntimeSettings(
                    **{**plain["settings"], "affinity": affinity if isinstance(affinity, str) else tuple(affinity)}
                ),
                provenance=Provenance.from_json(plain["provenance"]),
                weights=weights,
                measured=frozenset(plain["measured"]),
                uncertainty=Uncertainty.from_json(plain["uncertainty"]),
                held_out=Accuracy(**plain["held_out"]),
                noise_p95=float(plain["noise_p95"]),
                measurements=tuple(Measurement.from_json(one) for one in plain["measurements"]),
                basis=plain["basis"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{path}: the latency model is damaged ({error!r}): {remedy}") from error


def require_equal(target: str, here: Mapping[str, object], there: Mapping[str, object]) -> None:
    """Checks that what the model of `target` was measured on (`there`) is what there is `here`, key by key of `here`.

    Raises:
        ModelError: it is not; the message names the first difference.
    """
    for key, value in here.items():
        if there.get(key) != value:
            raise ModelError(
                f"the latency model of {target!r} was measured with {key} {there.get(key)!r}, but here it is {value!r}: "
                f"run `nas profile --target {target}`"
            )
