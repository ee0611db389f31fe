"""One step's proposals against each other: made, fine-tuned in two rungs, and one of them chosen."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.checkpoint import Checkpoint, save_checkpoint
from nas.choice import Worth, best, survivors, worth
from nas.data import Data
from nas.errors import TrainingError
from nas.proposals import Proposal
from nas.slicing import Slicer
from nas.steps import Events, Settings, Step
from nas.tuning import Job, Score, Tuner

FIRST_RUNG = 0.25  # of a short fine-tune, after which hopeless proposals are stopped


@dataclass(frozen=True)
class Choice:
    """How a contest ended.

    Attributes:
        index: the chosen proposal's position.
        checkpoint: its fine-tuned network.
        score: of that network.
        stopped: proposals that were stopped after the first rung.
        audit: whether the first rung would have stopped the chosen one; None where it stopped others.
    """

    index: int
    checkpoint: Path
    score: Score
    stopped: int
    audit: bool | None


@dataclass(frozen=True)
class Contest:
    """The proposals of one step, fine-tuned and compared.

    Attributes:
        number: of the step, from 1.
        before: the step before, whose network they start from.
        start: that network.
        proposals: at least one.
        data: fine-tuned on its training split, judged on its validation split.
        settings: of the run.
        tuner: fine-tunes them.
        folder: where their checkpoints lie until the step is done.
        events: who watches.
    """

    number: int
    before: Step
    start: Checkpoint
    proposals: Sequence[Proposal]
    data: Data
    settings: Settings
    tuner: Tuner
    folder: Path
    events: Events

    def result(self, index: int, rung: int) -> Path:
        """The checkpoint of a proposal after that rung."""
        return self.folder / f"{index:03}.rung{rung}.pt"

    def hold(self) -> Choice:
        """Make, fine-tune and compare the proposals.

        Raises:
            TrainingError: no proposal could be trained, or a worker process ended.
        """
        self._slice()
        everyone = range(len(self.proposals))
        first = self._rung(0, everyone)
        hopeful = survivors(everyone, lambda index: self._worth(index, first[index]))
        every = self.settings.audit_every
        audit = every > 0 and self.number % every == 0
        going = [index for index in everyone if first[index]] if audit else hopeful
        second = dict(zip(going, self._rung(1, going), strict=True))
        scores = {index: score for index, score in second.items() if score}
        if not scores:
            raise TrainingError(
                f"step {self.number}: the loss of every proposal became infinite; give a short recipe of a lower learning rate"
            )
        index = best(list(scores), lambda index: self._worth(index, scores[index]))
        stopped = len(everyone) - len(going)
        return Choice(index, self.result(index, 1), scores[index], stopped, index not in hopeful if audit else None)

    def _slice(self) -> None:
        """Write every proposal's network, weights taken from the step's start."""
        slicer = None
        for index, proposal in enumerate(self.proposals):
            path = self.folder / f"{index:03}.start.pt"
            if not path.exists():
                slicer = slicer or Slicer.of(self.start, self.data, self.settings)
                save_checkpoint(path, slicer.cut(proposal.counts, proposal.dropped))
            self.events.progress(f"step {self.number}: making proposals", index + 1, len(self.proposals))

    def _rung(self, rung: int, indices: Sequence[int]) -> list[Score | None]:
        settings = self.settings
        whole = settings.short.length(len(self.data.train))
        early = max(1, round(FIRST_RUNG * whole))
        seen = (self.number - 1) * whole + (early if rung else 0)
        images = whole - early if rung else early
        recipe = dataclasses.replace(settings.short, images=max(images, 1), epochs=None)
        jobs = [
            Job(
                start=self.result(index, 0) if rung else self.folder / f"{index:03}.start.pt",
                result=self.result(index, rung),
                recipe=recipe,
                seed=settings.seed,
                skip_images=seen,
            )
            for index in indices
        ]
        what = f"step {self.number}: {'hopeful proposals' if rung else 'proposals'} fine-tuned"
        self.events.progress(what, 0, len(jobs))
        return self.tuner.run(jobs, on_done=lambda done: self.events.progress(what, done, len(jobs)))

    def _worth(self, index: int, score: Score | None) -> Worth:
        saved_ms = self.before.predicted_ms - self.proposals[index].predicted_ms
        return worth(self.settings.rule, score, saved_ms=saved_ms, accuracy_before=self.before.accuracy)
