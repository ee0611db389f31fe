"""Trimming a network until it meets a budget on a device: NetAdapt, guided by measured latency.

    start, measured ─► step: proposals by the latency model ─► weights sliced, judged ─► hopeful ones fine-tuned ─► choice
                        ▲                                                                                              │
                        └── a checkpoint, now and then measured and the model corrected ◄──────────────────────────────┘
                       ─► at the budget: long fine-tune ─► judged once on the test split

Algorithm 1 of NetAdapt (arXiv 1804.03230) and MobileNetV3's variant (arXiv 1905.02244 section 4.2). Networks learn from the
training split, are chosen by the validation split (the papers' hold-out), and the test split is looked at once, at the end.
Every step leaves its record and its checkpoint in the run's folder, so a killed run goes on from there; on a CPU, with the same
seed, to the same result.
"""

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nas.calibration import TOLERATED, Calibrated, Measured, Untold
from nas.checkpoint import Checkpoint, load_checkpoint
from nas.contest import Contest
from nas.errors import BudgetError
from nas.family import Family
from nas.proposals import Predict, Proposal, dominated_ones, propose
from nas.reductions import Reductions, reductions
from nas.steps import Step
from nas.tuning import Tuner, open_tuner
from searchspace.width import widths

BELOW = 2  # steps below the least accuracy after which trimming ends, where accuracy is the limit
CHOICE = 0.5  # proposals per width that a step shall have to choose from
SMALLER = (
    2  # halvings of a step's reduction to have that many: in large networks few layers take enough for a large step
)
HALVINGS = 12  # while no single change makes the step


def netadapt(family: Family) -> list[Step]:
    """The start and the network of every step, trimmed as far as the family's settings say; errors are those of `trimming`."""
    return list(trimming(family))


def trimming(family: Family) -> Iterator[Step]:
    """The same, one step after the other.

    Raises:
        BudgetError: the start meets the budget already, or nothing that trimming can make does.
        ModelError: model and device differ beyond correction.
        DeviceError: the device is lost; what was done is kept.
        UnstableMeasurement: the start, or a network that the model finds fast enough, cannot be measured; what was done is kept.
    """
    steps = [family.first()]
    budget_ms = family.reachable_budget_ms(steps[0])
    asked = family.settings
    schedule = reductions(asked.reduction, decay=asked.decay, start_ms=steps[0].ms, budget_ms=budget_ms)
    loop = _Loop(family, schedule, budget_ms)
    yield steps[0]
    with open_tuner(family.data, workers=asked.workers) as tuner:
        while not loop.ended(steps):
            step = family.kept(len(steps)) or loop.step(steps[-1], tuner)
            if step is None:
                break
            shutil.rmtree(loop.folder(step.step), ignore_errors=True)
            steps.append(step)
            yield step


@dataclass(frozen=True)
class _Loop:
    """What stays the same from step to step."""

    family: Family
    schedule: Reductions
    budget_ms: float | None
    told: set[str] = field(default_factory=set)  # reasons why networks are passed over

    def ended(self, steps: Sequence[Step]) -> bool:
        """Whether the budget is met (on the device, see `_look`), or accuracy has been too low for a while."""
        if self.budget_ms is not None:
            return steps[-1].ms <= self.budget_ms
        least = self.family.least_accuracy(steps[0]) or 0.0
        return len(steps) > BELOW and all(step.accuracy < least for step in steps[-BELOW:])

    def folder(self, number: int) -> Path:
        """Where a step's proposals lie while they are compared."""
        return self.family.run.file(f"step-{number:02}.proposals")

    def step(self, before: Step, tuner: Tuner) -> Step | None:
        """Make the next step; None if accuracy is the limit and no change makes the network faster.

        Raises:
            BudgetError: latency is the limit, and no change makes the network faster.
        """
        began = time.perf_counter()
        family, number = self.family, before.step + 1
        start = family.checkpoint(before)
        model = Calibrated(family.model, before.factor)
        untold = Untold()
        proposals = self._proposals(start, before, model.telling(untold))
        if untold and untold.why not in self.told:
            self.told.add(untold.why)
            family.events.note(f"step {number}: {family.pass_over(untold)}")
        if not proposals:
            self._stuck(before)
            return None
        dominated = dominated_ones(start.architecture, proposals)
        contest = Contest(
            number=number,
            before=before,
            start=start,
            proposals=proposals,
            dominated=dominated,
            data=family.data,
            settings=family.settings,
            tuner=tuner,
            folder=self.folder(number),
            events=family.events,
        )
        images = tuner.images
        choice = contest.hold()
        chosen = proposals[choice.index]
        checkpoint = load_checkpoint(choice.checkpoint)
        name = f"step-{number:02}.pt"
        family.save(name, checkpoint)
        found, model = self._look(number, chosen, checkpoint, model)
        step = Step(
            step=number,
            what=chosen.what,
            checkpoint=name,
            fingerprint=chosen.architecture.fingerprint,
            accuracy=choice.score.accuracy,
            loss=choice.score.loss,
            predicted_ms=model.predict(chosen.architecture),
            measured_ms=found.ms if found else None,
            drift=found.drift if found else None,
            factor=model.factor,
            proposals=len(proposals),
            dominated=len(dominated),
            stopped=choice.stopped,
            audit=choice.audit,
            images=tuner.images - images,
            seconds=time.perf_counter() - began,
        )
        family.events.note(
            f"step {number}: {step.what}; {step.ms:.3g} ms, accuracy {step.accuracy:.1%} "
            f"({len(proposals)} proposals, {step.dominated} dominated, {step.stopped} stopped early"
            + (f"; {len(untold)} networks could not be told)" if untold else ")")
        )
        return family.keep(step)

    def _proposals(self, start: Checkpoint, before: Step, predict: Predict) -> list[Proposal]:
        """Proposals for the step's goal, or for half as ambitious ones that more changes can meet by themselves.

        Whatever the goal, each is predicted to be faster than the network before.
        """
        now_ms = before.predicted_ms
        below_ms = math.nextafter(now_ms, 0.0)
        goal_ms = max(self.schedule.goal_ms(now_ms), self.budget_ms or 0.0)
        wanted = CHOICE * len(widths(start.architecture))
        most: list[Proposal] = []
        for halving in range(HALVINGS):
            nearer_ms = now_ms - (now_ms - goal_ms) / 2**halving
            found = propose(start.architecture, predict, min(nearer_ms, below_ms))
            most = max(most, found, key=len)
            if sum(one.kind != "scale" for one in found) >= wanted or (most and halving >= SMALLER):
                break
        return most

    def _stuck(self, before: Step) -> None:
        if self.budget_ms is not None:
            elsewhere = " and another --out" if before.step else ""
            raise BudgetError(
                f"the budget must be one that trimming can reach, got {self.budget_ms:.3g} ms; after {before.step} steps "
                f"no change makes the network faster than {before.ms:.3g} ms: give a larger budget{elsewhere}"
            )
        self.family.events.note(f"no change makes the network of step {before.step} faster: trimming ends there")

    def _look(
        self, number: int, chosen: Proposal, checkpoint: Checkpoint, model: Calibrated
    ) -> tuple[Measured | None, Calibrated]:
        """Measure if it is time to, or if the model thinks that the budget is met; then the model is corrected."""
        family = self.family
        predicted_ms = model.predict(chosen.architecture)
        arrived = self.budget_ms is not None and predicted_ms <= self.budget_ms
        if number % family.settings.measure_every and not arrived:
            return None, model
        family.events.progress(f"step {number}: measuring on the device", 0, None)
        found = family.measured(checkpoint, predicted_ms, needed=arrived)
        if found is None:
            if family.device is not None:
                family.events.note(f"step {number}: the measurement did not settle, the model stays as it is")
            return None, model
        missed = arrived and found.ms > (self.budget_ms or 0.0)
        corrected = family.corrected(model, chosen.architecture, found.ms, tolerated=0.0 if missed else TOLERATED)
        if corrected is not model:
            family.events.note(
                f"step {number}: predicted {predicted_ms:.3g} ms, measured {found.ms:.3g} ms: the model is corrected"
            )
        return found, corrected
