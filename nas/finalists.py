"""The end of a search: which candidates are worth full training, and what the device says of them."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from latency.device import Device
from latency.settings import Effort, Precision, RuntimeSettings
from latency.timing import Timing
from nas.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nas.costs import MS, is_no_dearer
from nas.data import Data
from nas.deployment import export_onnx, first_images
from nas.distillation import Distillation
from nas.outcomes import Tried
from nas.recipe import Recipe
from nas.shipping.int8 import quantize
from nas.training import train
from nas.transfer import adapt
from searchspace.files import write_atomically

MEASURING = Effort(processes=3, slices=10, limit_s=10.0)
Progress = Callable[[str, int, int | None], None]


class Scored(Protocol):
    """Anything with an accuracy, a loss and costs by name."""

    @property
    def accuracy(self) -> float: ...
    @property
    def loss(self) -> float: ...
    @property
    def costs(self) -> Mapping[str, float]: ...


AnyScored = TypeVar("AnyScored", bound=Scored)


@dataclass(frozen=True)
class Shipped:
    """A finalist's network as it ships: in the target's precision.

    Attributes:
        onnx: where its model lies, which is the one that is measured.
        accuracy: of that model, on the validation split, in [0, 1].
        trained_accuracy: of the checkpoint there.
        loss: of the checkpoint, mean cross-entropy there, nats.
        float_layers: how many layers of an 8-bit model stay in float because 8 bits hurt.
    """

    onnx: Path
    accuracy: float
    trained_accuracy: float
    loss: float
    float_layers: int = 0


@dataclass(frozen=True)
class Finalist:
    """A fully trained candidate.

    Attributes:
        tried: what the search knew of it.
        checkpoint: where its weights lie.
        shipped: its exported model: the one that was measured.
        measured: its time on the device; None where there is no device, or it gave no answer.
        unmeasured: why it has no measured time, in one line; None if it has.
    """

    tried: Tried
    checkpoint: Path
    shipped: Shipped
    measured: Timing | None
    unmeasured: str | None = None

    @property
    def accuracy(self) -> float:
        """Of what ships, on the validation split, in [0, 1]."""
        return self.shipped.accuracy

    @property
    def loss(self) -> float:
        """Of the checkpoint, mean cross-entropy there, nats."""
        return self.shipped.loss

    @property
    def latency_ms(self) -> float:
        """Measured milliseconds; the predicted ones where there is no device."""
        return self.tried.predicted_ms if self.measured is None else self.measured.low_ms

    @property
    def costs(self) -> Mapping[str, float]:
        """What its accuracy is weighed against, by name."""
        return self.tried.costs_at(self.latency_ms)


def pareto_front(scored: Iterable[AnyScored]) -> list[AnyScored]:
    """Those that no other beats in accuracy at no more of any cost, by ascending (first) cost; of equals one stays.

    Of two that are equally accurate (a small validation split has few accuracies to give) the one of less loss is better.
    """
    front: list[tuple[Mapping[str, float], AnyScored]] = []
    rows = ((item.costs, item) for item in scored)
    for costs, item in sorted(rows, key=lambda row: (*row[0].values(), -row[1].accuracy, row[1].loss)):
        quality = _quality(item)
        if not any(_quality(other) >= quality and is_no_dearer(theirs, costs) for theirs, other in reversed(front)):
            front.append((costs, item))
    return [item for _, item in front]


def front_of(finalists: Sequence[Finalist], *, budget_ms: float) -> list[Finalist]:
    """The front of a search, by ascending (first) cost.

    Where milliseconds are none of the costs they are a limit only: then those over the budget have no place on it as long as
    another is within.
    """
    within = [one for one in finalists if MS in one.costs or one.latency_ms <= budget_ms]
    return pareto_front(within or finalists)


def _quality(item: Scored) -> tuple[float, float]:
    return item.accuracy, -item.loss


def ranked(tried: Sequence[Tried]) -> list[Tried]:
    """Candidates in the order in which full training is worth it.

    Front by front (first those nobody dominates, then those that only they dominate, …); within a front the most accurate one
    comes first, then always the one farthest from those before it: in latency rank, or in that of the cost where it is farthest.
    """
    left = list(tried)
    order: list[Tried] = []
    while left:
        front = pareto_front(left)
        order += _spread(front)
        left = [candidate for candidate in left if candidate not in front]
    return order


def state_file(path: Path) -> Path:
    """Where the state of a training lies whose checkpoint goes to `path`."""
    return path.with_suffix(".state")


def notes_file(path: Path) -> Path:
    """Where it is written what a user should know of the training whose checkpoint goes to `path`, a line each."""
    return path.with_suffix(".notes")


def notes_of(path: Path) -> list[str]:
    """What a user should know of that training."""
    try:
        return notes_file(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def train_finalist(
    start: Path,
    *,
    data: Data,
    recipe: Recipe,
    path: Path,
    seed: int,
    skip_images: int,
    device: str | None = None,
    distillation: Distillation | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Train a candidate fully, from its brief weights; a run that was killed goes on, a finished one is not repeated.

    Returns:
        `path`, where its checkpoint lies.
    """
    if path.exists():
        return path
    state = state_file(path)
    result = train(
        adapt(load_checkpoint(start), data),  # the last rung may have had another resolution
        data,
        recipe,
        seed=seed,
        device=device,
        skip_images=skip_images,
        state_file=state,
        distillation=distillation,
        on_progress=on_progress,
    )
    metrics = {
        **result.checkpoint.metrics,
        "seconds": result.seconds,
        "curve": [dataclasses.asdict(look) for look in result.curve],
    }
    if result.notes:  # those of a process of several are told by the one that waits for it
        write_atomically(notes_file(path), "\n".join(result.notes).encode())
    save_checkpoint(path, dataclasses.replace(result.checkpoint, metrics=metrics))
    state.unlink(missing_ok=True)
    return path


def ship(
    checkpoint: Checkpoint,
    path: Path,
    data: Data,
    *,
    precision: Precision,
    on_progress: Callable[[str, int, int | None], None] = lambda what, done, total: None,
) -> Shipped:
    """Exports a finalist in the precision of the target: 8 bits as `nas export --format onnx-int8 --min-agreement 0` does.

    Args:
        checkpoint: the finalist.
        path: of its checkpoint; the model is written beside it.
        data: what it was trained on.
        precision: of the target.
        on_progress: told what goes on.
    """
    trained, loss = checkpoint.metrics["accuracy"], checkpoint.metrics["loss"]
    if precision == "fp32":
        onnx = path.with_suffix(".onnx")
        export_onnx(checkpoint, onnx, images=first_images(data.validation, data))
        return Shipped(onnx, trained, trained, loss)
    # what counts is the accuracy within the budget: layers in float that only agreement asks for would cost latency
    made = quantize(checkpoint, data, min_agreement=0.0, on_progress=on_progress)
    onnx = path.with_name(f"{path.stem}-int8.onnx")
    write_atomically(onnx, made.model)
    return Shipped(onnx, made.accuracy, trained, loss, len(made.float_layers))


def measure(
    device: Device, models: Sequence[bytes], *, settings: RuntimeSettings, on_progress: Progress | None = None
) -> list[Timing]:
    """Times of several models, interleaved so that they compare; in the order of `models`.

    Raises:
        DeviceError: the device cannot run them.
    """
    taken = 0
    least = MEASURING.processes * MEASURING.slices * len(models)

    def count(index: int, part: object) -> None:
        nonlocal taken
        taken += 1
        if on_progress is not None:
            on_progress("measuring the finalists on the device", min(taken, least), least)

    def wait(holder: str) -> None:
        if on_progress is not None:
            on_progress(f"waiting for {device.name}: {holder}", 0, least)

    with device.reserve("measuring finalists", on_wait=wait):
        return device.measure(models, settings=settings, effort=MEASURING, on_slice=count)


def _spread(front: Sequence[Tried]) -> list[Tried]:
    """A front in an order whose every beginning is spread over it."""
    ranks = []
    for name in front[0].costs:
        amounts = sorted({one.costs[name] for one in front})
        ranks.append([amounts.index(one.costs[name]) for one in front])

    def distance(one: int, other: int) -> int:
        return max(abs(rank[one] - rank[other]) for rank in ranks)

    positions = list(range(len(front)))
    chosen = [max(positions, key=lambda position: _quality(front[position]))]
    positions.remove(chosen[0])
    while positions:
        farthest = max(positions, key=lambda position: min(distance(position, other) for other in chosen))
        positions.remove(farthest)
        chosen.append(farthest)
    return [front[position] for position in chosen]
