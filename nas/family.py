"""The networks of one trimming run: the start, then one a step, each with its record, in the run's folder."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latency.device import Device
from latency.errors import ModelError, UnstableMeasurement
from latency.settings import RuntimeSettings
from nas.calibration import TOLERATED, TRIES, Calibrated, Measured, Untold, measure_beside, measure_start
from nas.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nas.data import Data
from nas.errors import BudgetError, StudyError
from nas.evaluation import evaluate
from nas.prediction import Model
from nas.proposals import fastest
from nas.run import Run
from nas.steps import Events, Settings, Step
from nas.tuning import one_thread
from searchspace.architecture import Architecture
from searchspace.files import write_atomically

UNTOLD, DIFFERING = "untold.jsonl", "differing.jsonl"
"""Files in the run's folder, for `nas profile --like`: networks that the model cannot tell, and those it tells wrongly."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A run's networks, and what is needed to make more of them.

    Attributes:
        run: the folder.
        start: the untrimmed network.
        data: learned from by its training split, chosen by its validation split.
        device: where networks are measured; None: nowhere, the model is all there is.
        runtime: how they run there.
        model: predicts latencies there.
        settings: what may be chosen.
        events: who watches.
        target: what `--target` takes to mean the device, for messages.
    """

    run: Run
    start: Checkpoint
    data: Data
    device: Device | None
    runtime: RuntimeSettings
    model: Model
    settings: Settings
    events: Events
    target: str = "host"

    def first(self) -> Step:
        """Step 0: the start, judged and measured; the model is made right for it.

        Raises:
            UnmeasuredKernel: the model cannot tell what the start takes.
            DeviceError: the device is lost.
            UnstableMeasurement: the start's measurement does not settle.
        """
        if kept := self.kept(0):
            return kept
        self.events.progress("measuring the start network", 0, None)
        architecture = self.start.architecture
        found, fitted = self._measured_start()
        with one_thread():
            judged = evaluate(self.start.network(), self.data.validation, self.data)
        self.save("step-00.pt", self.start)
        return self.keep(
            Step(
                step=0,
                what="start",
                checkpoint="step-00.pt",
                fingerprint=architecture.fingerprint,
                accuracy=judged.accuracy,
                loss=judged.loss,
                predicted_ms=fitted.predict(architecture),
                measured_ms=found.ms if found else None,
                drift=found.drift if found else None,
                factor=fitted.factor,
                images=0,
            )
        )

    def _measured_start(self) -> tuple[Measured | None, Calibrated]:
        """What the start takes on the device, and the model made right for it."""
        model = Calibrated(self.model)
        expected_ms = self.model.predict(self.start.architecture).ms
        if self.device is None:
            return None, model
        found = measure_start(
            self.device,
            self.start,
            self.runtime,
            as_expected=lambda ms: abs(ms / expected_ms - 1) <= TOLERATED,
            on_wait=self._waiting,
        )
        if not found.stable:
            raise _unsettled(self.device)
        return found, self.corrected(model, self.start.architecture, found.ms, tolerated=0.0)

    def corrected(
        self, model: Calibrated, architecture: Architecture, measured_ms: float, *, tolerated: float = TOLERATED
    ) -> Calibrated:
        """As `Calibrated.corrected`; where the model is no guide, the message says how to make it one."""
        try:
            return model.corrected(architecture, measured_ms, tolerated=tolerated)
        except ModelError as reason:
            remedy = self._profile_command(DIFFERING, [architecture])
            raise ModelError(f"{reason}: {remedy}, then the same command with another --out") from reason

    def pass_over(self, untold: Untold) -> str:
        """What to say of networks that the model could not tell; empty where there is none.

        Some are written to the run's folder, so that they can be profiled.
        """
        if not untold:
            return ""
        text = f"{len(untold)} networks were passed over, their latency cannot be told: {untold.why}"
        if self.device is None:
            return text
        return f"{text}; {self._profile_command(UNTOLD, untold.examples)} and give another --out to have them too"

    def _profile_command(self, name: str, networks: Sequence[Architecture]) -> str:
        """The command that teaches the target's model these networks, which are written to the run's folder."""
        path = self.run.file(name)
        write_atomically(path, "".join(f"{json.dumps(one.to_dict())}\n" for one in networks).encode())
        return f"run `nas profile --target {self.target} --like {path}`"

    def measured(self, network: Checkpoint | bytes, expected_ms: float, *, needed: bool = True) -> Measured | None:
        """What a network takes on the device, beside the start; None where there is no device.

        Args:
            network: of this family, or the model that is made of it.
            expected_ms: what it should take by the model.
            needed: whether there is no going on without it; else None where it does not settle.

        Raises:
            DeviceError: the device is lost.
            UnstableMeasurement: the measurement is needed and does not settle.
        """
        if self.device is None:
            return None
        found = measure_beside(
            self.device,
            self.start,
            network,
            self.runtime,
            start_ms=self.first().ms,
            expected_ms=expected_ms,
            on_wait=self._waiting,
        )
        if found.stable:
            return found
        if needed:
            raise _unsettled(self.device)
        return None

    def _waiting(self, what: str) -> None:
        assert self.device is not None
        self.events.note(f"waiting for {self.device.name}: {what}")

    def moved(self, steps: Sequence[Step]) -> float:
        """How far the device moved in this run at most, as |ln(time then ÷ time at first)| of the start."""
        return max((abs(math.log(step.drift)) for step in steps if step.drift), default=0.0)

    def budget_ms(self, start: Step) -> float | None:
        """The budget in milliseconds, None where accuracy is the limit."""
        ratio = self.settings.budget_ratio
        return self.settings.budget_ms if ratio is None else ratio * start.ms

    def reachable_budget_ms(self, start: Step) -> float | None:
        """The budget in milliseconds, None where accuracy is the limit.

        Raises:
            BudgetError: the start meets it already, or nothing that trimming can make does.
        """
        budget_ms = self.budget_ms(start)
        if budget_ms is None:
            return None
        if start.ms <= budget_ms:
            raise BudgetError(
                f"there is nothing to trim: the network takes {start.ms:.3g} ms, within the budget of {budget_ms:.3g} ms; "
                "give a smaller budget"
            )
        untold = Untold()
        _, least_ms = fastest(self.start.architecture, Calibrated(self.model, start.factor).telling(untold))
        if least_ms > budget_ms:
            unknown = self.pass_over(untold)
            raise BudgetError(
                f"the budget must be one that trimming can reach, got {budget_ms:.3g} ms; the fastest reachable is about "
                f"{least_ms:.3g} ms: give a larger budget, or start from a faster network"
                + (f" ({unknown})" if unknown else "")
            )
        return budget_ms

    def least_accuracy(self, start: Step) -> float | None:
        """What validation accuracy must not fall below, None where latency is the limit."""
        drop = self.settings.max_accuracy_drop
        return None if drop is None else start.accuracy - drop

    def checkpoint(self, step: Step) -> Checkpoint:
        """The network of a step."""
        return load_checkpoint(self.run.file(step.checkpoint))

    def save(self, name: str, checkpoint: Checkpoint) -> Path:
        """Write a network of this family; it says by which seed the start's images were divided, since it has seen the same."""
        path = self.run.file(name)
        save_checkpoint(path, checkpoint.divided_as(self.start))
        return path

    def kept(self, number: int) -> Step | None:
        """The record of a step that was made before, None if there is none.

        Raises:
            StudyError: it is damaged.
        """
        content = self.run.read_json(f"step-{number:02}.json")
        try:
            return None if content is None else Step(**content)
        except TypeError:
            raise StudyError(f"{self.run.path}: the record of step {number} is damaged; choose another --out") from None

    def keep(self, step: Step) -> Step:
        """Write a step's record: from here on it is done."""
        self.run.write_json(f"step-{step.step:02}.json", dataclasses.asdict(step))
        return step


def _unsettled(device: Device) -> UnstableMeasurement:
    return UnstableMeasurement(
        f"{device.name}: a measurement must settle to be believed, but {TRIES} in a row did not: stop what else runs there"
    )
