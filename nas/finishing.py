"""The end of trimming: a long fine-tune of the network that is kept, judged once on the test split."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nas.calibration import TOLERATED
from nas.checkpoint import Checkpoint, load_checkpoint
from nas.delivery import Delivery, deliver
from nas.distillation import Distillation
from nas.evaluation import evaluate
from nas.family import Family
from nas.recipe import Recipe
from nas.steps import Step
from nas.training import train
from nas.tuning import one_thread


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What trimming came to.

    Attributes:
        step: the step whose network was kept, as it is recorded now; 0 if the start was.
        checkpoint: the finished network.
        accuracy: on the test split.
        start_accuracy: of the untrimmed network there.
        validation_accuracy: on the split that steps were chosen by.
        measured_ms: on the device, at the speed that it had when the start was measured; None where there is none.
        images: training images of the long fine-tunes, those of networks that did not come to be accurate enough included.
        delivery: the 8-bit files that ship, None where networks ship in float32, as they were trained and measured.
    """

    step: Step
    checkpoint: Path
    accuracy: float
    start_accuracy: float
    validation_accuracy: float
    measured_ms: float | None
    images: int
    delivery: Delivery | None = None


def finish(
    family: Family,
    steps: Sequence[Step],
    *,
    recipe: Recipe,
    distillation: Distillation | None = None,
    threads: int = 1,
) -> Outcome:
    """Fine-tune the network that is kept, and judge it.

    Where latency is the limit that is the last one. Where accuracy is, it is the smallest that is accurate enough after its long
    fine-tune, found by bisection: accuracy falls with the steps, about.

    Args:
        family: the run's networks.
        steps: its records, the start's first.
        recipe: of the long fine-tune.
        distillation: from the untrimmed network, say; None: labels alone.
        threads: that the fine-tune computes on; another number rounds otherwise.

    Raises:
        DeviceError: the device is lost; what was fine-tuned is kept.
        UnstableMeasurement: the network that is kept was not measured yet, and the device does not settle.
    """
    least = family.least_accuracy(steps[0])
    kept, path, accuracy = steps[0], family.run.file(steps[0].checkpoint), steps[0].accuracy
    images, candidates = 0, steps[1:]
    if least is not None and len(candidates) > 1:
        family.events.note(
            f"which of {len(candidates)} networks is the smallest within the drop is found by bisection: at most "
            f"{len(candidates).bit_length()} long fine-tunes of {recipe.length(len(family.data.train)):,} images each"
        )
    while candidates:
        middle = len(candidates) - 1 if least is None else len(candidates) // 2
        step = candidates[middle]
        tuned = _tune(family, step, recipe=recipe, distillation=distillation, threads=threads)
        metrics = load_checkpoint(tuned).metrics
        score, images = metrics["accuracy"], images + int(metrics["images"])
        if least is None or score >= least:
            kept, path, accuracy = step, tuned, score
            candidates = candidates[middle + 1 :]
        else:
            family.events.note(f"step {step.step}: {score:.1%} after its long fine-tune, {least:.1%} is asked for")
            candidates = candidates[:middle]
    checkpoint = load_checkpoint(path)
    if kept.measured_ms is None:
        kept = _measured(family, kept, checkpoint)
    on_test = _on_test(family, checkpoint)
    final = dataclasses.replace(checkpoint, metrics={**checkpoint.metrics, "test_accuracy": on_test})
    delivery = deliver(family, path, final, expected_ms=kept.ms)
    if delivery is not None:
        _hold_to_limits(family, delivery, budget_ms=family.budget_ms(steps[0]), least=least)
    ships_ms = kept.measured_ms if delivery is None else delivery.result.ms
    if ships_ms is not None:
        told = {"measured_ms": ships_ms, "target": family.run.request.get("target")}
        final = dataclasses.replace(final, metrics={**final.metrics, **told})
    return Outcome(
        step=kept,
        checkpoint=family.save(path.name, final),
        accuracy=on_test,
        start_accuracy=_on_test(family, family.start),
        validation_accuracy=accuracy,
        measured_ms=kept.measured_ms,
        images=images,
        delivery=delivery,
    )


def _hold_to_limits(family: Family, delivery: Delivery, *, budget_ms: float | None, least: float | None) -> None:
    """Say so where what ships is beyond the limit that its steps were held to."""
    found = delivery.result
    in_float = f"{found.float_layers} of its layers are in float, as 8 bits would cost too much accuracy there"
    if budget_ms is not None and found.ms is not None and found.ms > budget_ms:
        family.events.note(
            f"the 8-bit file takes {found.ms:.3g} ms, more than the budget of {budget_ms:.3g} ms"
            + (f": {in_float}" if found.float_layers else "")
            + "; give a smaller budget"
        )
    if least is not None and found.validation_accuracy < least:
        family.events.note(
            f"the 8-bit file is right on {found.validation_accuracy:.1%} of the validation split, {least:.1%} is asked for"
        )


def _tune(family: Family, step: Step, *, recipe: Recipe, distillation: Distillation | None, threads: int) -> Path:
    """The checkpoint of a step's network after its long fine-tune; one that was interrupted goes on."""
    path = family.run.file(f"final-{step.step:02}.pt")
    if path.exists():
        return path
    state_file = path.with_suffix(".state")
    settings = family.settings

    def on_progress(what: str, done: int, total: int | None) -> None:
        family.events.progress(f"long fine-tune of step {step.step}: {what}", done, total)

    with one_thread():
        torch.set_num_threads(threads)
        result = train(
            family.checkpoint(step),
            family.data,
            recipe,
            seed=settings.seed,
            skip_images=step.step * settings.short.length(len(family.data.train)),
            state_file=state_file,
            distillation=distillation,
            on_progress=on_progress,
        )
    for remark in result.notes:
        family.events.note(remark)
    metrics = {**result.checkpoint.metrics, "seconds": result.seconds}
    family.save(path.name, dataclasses.replace(result.checkpoint, metrics=metrics))
    state_file.unlink(missing_ok=True)
    return path


def _measured(family: Family, step: Step, checkpoint: Checkpoint) -> Step:
    """The step with what its network takes on the device, where there is one; recorded, so that it is measured once."""
    family.events.progress("measuring the trimmed network", 0, None)
    found = family.measured(checkpoint, step.predicted_ms)
    if found is None:
        return step
    if abs(found.ms / step.predicted_ms - 1) > TOLERATED:
        family.events.note(f"step {step.step}: predicted {step.predicted_ms:.3g} ms, measured {found.ms:.3g} ms")
    return family.keep(dataclasses.replace(step, measured_ms=found.ms, drift=found.drift))


def _on_test(family: Family, checkpoint: Checkpoint) -> float:
    with one_thread():
        return evaluate(checkpoint.network(), family.data.test, family.data).accuracy
