"""The latency model that a run needs: one that knows the networks in question, or one that is profiled on the spot."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from latency.errors import DeviceUnavailable, ModelError, UnmeasuredKernel
from latency.features import measured_as
from latency.lock import unless_taken
from latency.model import LatencyModel
from latency.planning import kernels
from latency.profiling import Progress, profile_target
from latency.settings import Precision
from latency.store import Predictor, load_model, load_predictor, read_predictor
from latency.target import Target
from searchspace.architecture import Architecture, lower
from searchspace.sampling import RandomSuggest
from searchspace.space import Space

RUN_REMEDY = (
    "this run judged by it; delete the file to go on with the target's present model, or begin another run with --out"
)
NETWORKS = 48  # profiled where the target's model does not know what it is asked about
DRAWS = 4 * NETWORKS  # to find so many unmeasured ones among; a small space has fewer
FEWEST_ALIKE = 24  # measured networks of a resolution, for the model to know it
PROBES = 1000  # random networks of the space, all of whose kernels must have been measured
POOL = 1000  # drawn to find those with rare kinds of kernels
OF_EACH_KIND = 5  # networks that have it; some measurements may turn out unstable


class Prediction(Protocol):
    """Milliseconds of a network on the device: expected, and the interval that is likely to hold them."""

    @property
    def ms(self) -> float: ...
    @property
    def low_ms(self) -> float: ...
    @property
    def high_ms(self) -> float: ...


class Model(Protocol):
    """A latency model, as searching and trimming need it."""

    def predict(self, architecture: Architecture) -> Prediction: ...


def space_architectures(
    space: Space, *, nchwc_block: int, precision: Precision = "fp32", seed: int = 0
) -> Iterator[Architecture]:
    """Networks of a space to measure, without end: first some that have the rare kinds of kernels, then any.

    Args:
        space: adapted to the data.
        nchwc_block: channels in a block of the device's runtime; it decides which kernels a network has.
        precision: of the models that are measured; it decides that, too.
        seed: of the draws.
    """
    source = RandomSuggest(seed)
    yield from rare_first([space.sample(source) for _ in range(POOL)], nchwc_block=nchwc_block, precision=precision)
    while True:
        yield space.sample(source)


def rare_first(
    pool: Sequence[Architecture], *, nchwc_block: int, precision: Precision = "fp32"
) -> Iterator[Architecture]:
    """The networks of a pool: first some that have the rare kinds of kernels, then the others; arguments as above."""
    having: dict[str, list[int]] = {}
    kinds = [
        {
            name
            for kernel in kernels(lower(one), nchwc_block=nchwc_block, precision=precision)
            for name in measured_as(kernel)
        }
        for one in pool
    ]
    for index, names in enumerate(kinds):
        for name in names:
            having.setdefault(name, []).append(index)
    chosen: dict[int, None] = {}
    for name, indices in sorted(having.items(), key=lambda item: (len(item[1]), item[0])):
        lacking = OF_EACH_KIND - sum(name in kinds[index] for index in chosen)
        chosen.update(dict.fromkeys([index for index in indices if index not in chosen][: max(lacking, 0)]))
    yield from (pool[index] for index in chosen)
    yield from (one for index, one in enumerate(pool) if index not in chosen)


def knows(model: LatencyModel, space: Space) -> bool:
    """Whether the model was fitted to networks like those of the space: its resolutions, and all its kinds of kernels."""
    sizes = [(one.architecture.resolution, one.architecture.channels) for one in model.measurements]
    if any(sizes.count((resolution, space.channels)) < FEWEST_ALIKE for resolution in space.resolution):
        return False
    source = RandomSuggest(1)
    try:
        for _ in range(PROBES):
            model.predict_ms(space.sample(source))
    except UnmeasuredKernel:
        return False
    return True


def load_run_model(path: Path) -> Predictor:
    """The latency model in a run's folder, by which the run judged so far.

    Raises:
        ModelError: it is damaged or of another format; the message says how to go on all the same.
    """
    return read_predictor(
        path,
        remedy=RUN_REMEDY,
    )


def model_for(
    target: Target,
    space: Space,
    *,
    note: Callable[[str], None],
    on_progress: Callable[[Progress], None] | None = None,
) -> Predictor:
    """The target's latency model if it knows the space, else the one that profiling networks of the space gives.

    A target of published latencies has one model, whatever the space.

    Raises:
        LatencyError: the device fails, or too few measurements on it are stable.
    """
    if target.basis == "published":
        return load_predictor(target)

    def architectures(nchwc_block: int) -> Iterator[Architecture]:
        return space_architectures(space, nchwc_block=nchwc_block, precision=target.settings.precision)

    return known_or_profiled(
        target, lambda model: knows(model, space), architectures, "this space", note=note, on_progress=on_progress
    )


def known_or_profiled(
    target: Target,
    is_known: Callable[[LatencyModel], bool],
    architectures: Callable[[int], Iterable[Architecture]],
    what: str,
    *,
    note: Callable[[str], None],
    on_progress: Callable[[Progress], None] | None = None,
) -> LatencyModel:
    """The target's latency model if it knows what is asked for, else the one that profiling gives.

    Args:
        target: whose model.
        is_known: whether a model can be used.
        architectures: networks to profile if not, given the channels in a block of the device's runtime.
        what: they are, for people.
        note: hears why something is measured.
        on_progress: hears how far that is.

    Raises:
        LatencyError: the device fails, or too few measurements on it are stable.
    """
    try:
        model = load_model(target)
    except ModelError as reason:
        note(f"{reason}; it is profiled now")
    else:
        _hold_to_device(model, target, note)
        if is_known(model):
            return model
        note(f"the latency model of {target.name!r} does not know {what} yet: networks of it are measured now")
    device = target.open()

    def on_wait(holder: str) -> None:
        note(f"waiting for {target.name}: {holder}")

    with device.reserve("looking at it", on_wait=on_wait):
        block = device.describe().nchwc_block
    return profile_target(
        target,
        islice(architectures(block), DRAWS),
        more=NETWORKS,
        device=device,
        on_progress=on_progress,
        on_wait=on_wait,
        on_saved=lambda saved: note(
            f"a latency model of the {len(saved.measurements)} networks measured so far was saved"
        ),
    )


def _hold_to_device(model: LatencyModel, target: Target, note: Callable[[str], None]) -> None:
    """Checks that a remote device still is what the model was made for, if it answers; if not, the model is all there is.

    Raises:
        ModelError: it is another one, or its runtime is.
    """
    if target.address is None:
        return
    device = target.open()
    try:
        with device.reserve("looking at it", on_wait=unless_taken(target.name)):
            model.require(device.describe(), target.settings)
    except DeviceUnavailable as error:
        note(f"{error}: the run goes on with the latency model of {target.name!r}")
