"""The latency model that a search needs: one that knows the space, or one that is profiled on the spot."""

from collections.abc import Callable, Iterator

from latency.errors import ModelError, UnmeasuredKernel
from latency.model import LatencyModel
from latency.profiling import Progress, profile_target
from latency.store import load_model
from latency.target import Target
from searchspace.architecture import Architecture
from searchspace.sampling import RandomSuggest
from searchspace.space import Space

NETWORKS = 40  # profiled for a space that the target's model does not know
FEWEST_ALIKE = 24  # measured networks of a space's resolution, for the model to know it
PROBES = 300  # random networks of the space, all of whose kernels must have been measured


def space_architectures(space: Space, *, seed: int = 0) -> Iterator[Architecture]:
    """Random networks of a space, without end."""
    source = RandomSuggest(seed)
    while True:
        yield space.sample(source)


def knows(model: LatencyModel, space: Space) -> bool:
    """Whether the model was fitted to networks like those of the space: its resolutions, and all its kinds of kernels."""
    sizes = [(one.architecture.resolution, one.architecture.channels) for one in model.measurements]
    if any(sizes.count((resolution, space.channels)) < FEWEST_ALIKE for resolution in space.resolution):
        return False
    drawn = space_architectures(space)
    try:
        for _ in range(PROBES):
            model.predict_ms(next(drawn))
    except UnmeasuredKernel:
        return False
    return True


def model_for(
    target: Target,
    space: Space,
    *,
    note: Callable[[str], None],
    on_progress: Callable[[Progress], None] | None = None,
) -> LatencyModel:
    """The target's latency model if it knows the space, else the one that profiling networks of the space gives.

    Raises:
        LatencyError: the device fails, or too few measurements on it are stable.
    """
    before = 0
    try:
        model = load_model(target)
    except ModelError as reason:
        note(f"{reason}; it is profiled now")
    else:
        if knows(model, space):
            return model
        before = len(model.measurements)
        note(f"the latency model of {target.name!r} does not know this space yet: networks of it are measured now")
    return profile_target(target, space_architectures(space), networks=before + NETWORKS, on_progress=on_progress)
