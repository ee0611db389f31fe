"""The baseline that NetAdapt is compared with: one width multiplier for the whole network, as MobileNets are scaled."""

import time

from nas.calibration import Calibrated, Untold
from nas.checkpoint import Checkpoint
from nas.errors import BudgetError
from nas.evaluation import evaluate
from nas.family import Family
from nas.proposals import Predict, multiplied, scaled
from nas.slicing import Slicer
from nas.steps import Step
from nas.tuning import one_thread
from searchspace.width import set_widths, widths

TRIES = 5  # measurements until the budget is met on the device


def uniform(family: Family) -> list[Step]:
    """The start, and the network with the largest width multiplier that meets the budget on the device.

    Raises:
        BudgetError: the start meets the budget already, or no multiplier does.
        ModelError: model and device differ beyond correction.
        DeviceError: the device is lost.
        UnstableMeasurement: the device does not settle.
    """
    start = family.first()
    budget_ms = family.reachable_budget_ms(start)
    assert budget_ms is not None
    return [start, family.kept(1) or _scaled(family, start, budget_ms)]


def _scaled(family: Family, start: Step, budget_ms: float) -> Step:
    began = time.perf_counter()
    slicer = Slicer.of(family.start, family.data, family.settings)
    model = Calibrated(family.model, start.factor)
    untold = Untold()
    for _ in range(TRIES):
        multiplier, counts = widest(family.start, model.telling(untold), budget_ms)
        narrow = slicer.narrowed(counts)
        family.events.progress(f"width multiplier {multiplier:.3g}: measuring on the device", 0, None)
        found = family.measured(narrow, model.predict(narrow.architecture))
        if found is None:
            break
        model = family.corrected(model, narrow.architecture, found.ms, tolerated=0.0)
        if found.ms <= budget_ms:
            break
    else:
        assert found is not None
        family.events.note(f"the device still takes {found.ms:.3g} ms after {TRIES} corrections of the model")
    if untold:
        family.events.note(family.pass_over(untold))
    with one_thread():
        judged = evaluate(narrow.network(), family.data.validation, family.data)
    family.save("step-01.pt", narrow)
    return family.keep(
        Step(
            step=1,
            what=f"width multiplier {multiplier:.3g}",
            checkpoint="step-01.pt",
            fingerprint=narrow.architecture.fingerprint,
            accuracy=judged.accuracy,
            loss=judged.loss,
            predicted_ms=model.predict(narrow.architecture),
            measured_ms=found.ms if found else None,
            drift=found.drift if found else None,
            factor=model.factor,
            proposals=1,
            images=0,
            seconds=time.perf_counter() - began,
        )
    )


def widest(start: Checkpoint, predict: Predict, budget_ms: float) -> tuple[float, dict[str, int]]:
    """The largest multiplier whose network meets the budget, and the count of each width then.

    Raises:
        BudgetError: none does.
    """
    group = widths(start.architecture)
    found = scaled(start.architecture, group, predict, budget_ms)
    if found is not None:
        return found
    least_ms = predict(set_widths(start.architecture, [(width, multiplied(width, 0.0, 1)) for width in group]))
    raise BudgetError(
        f"the budget must be one that a width multiplier can reach, got {budget_ms:.3g} ms; the fastest reachable is about "
        f"{least_ms:.3g} ms: give a larger budget"
    )
