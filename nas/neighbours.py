"""A latency model that knows what trimming makes of one network: fitted to networks trimmed from it at random."""

import random
from collections.abc import Callable, Iterator
from itertools import chain, islice

from latency.errors import UnmeasuredKernel
from latency.model import LatencyModel
from latency.profiling import Progress
from latency.store import Predictor, load_predictor
from latency.target import Target
from nas.prediction import FEWEST_ALIKE, known_or_profiled, rare_first
from searchspace.architecture import Architecture
from searchspace.width import drop_block, droppable, set_widths, widths

ALIGNED = 0.7  # of the random networks have widths that are multiples of `DIVISOR`
DIVISOR = 8
LEAST_SHARE = 0.2  # of a width that stays
DROPPED = 0.1  # of the residual blocks
PROBES = 100  # trimmed networks that a model is asked about
KNOWN = 0.95  # of them that it must know: kernels rarer than that are told of when trimming passes them over
POOL = 400  # drawn to find those with rare kinds of kernels


def neighbours(architecture: Architecture, *, seed: int = 0) -> Iterator[Architecture]:
    """The architecture, then networks trimmed from it at random, without end."""
    source = random.Random(seed)
    yield architecture
    while True:
        narrowed = architecture
        for index in reversed(droppable(architecture)):
            if source.random() < DROPPED and index in droppable(narrowed):
                narrowed = drop_block(narrowed, index)
        overall = source.uniform(LEAST_SHARE, 1.0)
        divisor = DIVISOR if source.random() < ALIGNED else 1
        counts = []
        for width in widths(narrowed):
            share = min(1.0, max(LEAST_SHARE, overall * source.uniform(0.6, 1.4)))
            count = max(1, round(share * width.count / divisor)) * divisor
            counts.append((width, min(count, width.count)))
        yield set_widths(narrowed, counts)


def knows(model: LatencyModel, architecture: Architecture) -> bool:
    """Whether the model was fitted to networks of this resolution, and can predict this one and what trimming makes of it."""
    size = (architecture.resolution, architecture.channels)
    alike = [one for one in model.measurements if (one.architecture.resolution, one.architecture.channels) == size]
    if len(alike) < FEWEST_ALIKE:
        return False
    return _tells(model, architecture) and sum(
        _tells(model, one) for one in islice(neighbours(architecture), PROBES)
    ) >= round(KNOWN * PROBES)


def _tells(model: LatencyModel, architecture: Architecture) -> bool:
    try:
        model.predict(architecture)
    except UnmeasuredKernel:
        return False
    return True


def model_near(
    target: Target,
    architecture: Architecture,
    *,
    note: Callable[[str], None],
    on_progress: Callable[[Progress], None] | None = None,
) -> Predictor:
    """The target's latency model if it knows the network, else the one that profiling its neighbours gives.

    A target of published latencies has one model, whatever the network.

    Raises:
        LatencyError: the device fails, or too few measurements on it are stable.
    """
    if target.basis == "published":
        return load_predictor(target)

    def architectures(nchwc_block: int) -> Iterator[Architecture]:
        more = neighbours(architecture)
        itself, *pool = islice(more, POOL)
        return chain([itself], rare_first(pool, nchwc_block=nchwc_block, precision=target.settings.precision), more)

    return known_or_profiled(
        target,
        lambda model: knows(model, architecture),
        architectures,
        "what trimming makes of this network",
        note=note,
        on_progress=on_progress,
    )
