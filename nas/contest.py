"""One step's proposals against each other: made, judged untrained, the hopeful ones fine-tuned, and one of them chosen.

Once its statistics fit (`nas.normalisation`), a trimmed network's accuracy tells before any training what is hopeless.
"""

import dataclasses
from collections.abc import Collection, Sequence
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

SHARE = 4  # the first look takes one in so many hold-out images
JUDGED = 500  # but so many at least


@dataclass(frozen=True)
class Choice:
    """How a contest ended.

    Attributes:
        index: the chosen proposal's position.
        checkpoint: its fine-tuned network.
        score: of that network.
        stopped: proposals that were stopped after the first look, untrained.
        audit: validation accuracy by which the chosen one beats the best of those that are neither dominated nor would have
            been stopped, 0 where it is one of them; None where only those were tried to the end.
    """

    index: int
    checkpoint: Path
    score: Score
    stopped: int
    audit: float | None


@dataclass(frozen=True)
class Contest:
    """The proposals of one step, fine-tuned and compared.

    Attributes:
        number: of the step, from 1.
        before: the step before, whose network they start from.
        start: that network.
        proposals: at least one.
        dominated: positions of those that are passed over.
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
    dominated: Collection[int]
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
        promising = [index for index in range(len(self.proposals)) if index not in self.dominated]
        every = self.settings.audit_every
        audit = every > 0 and self.number % every == 0
        tried = range(len(self.proposals)) if audit else promising
        self._slice(tried)
        first = dict(zip(tried, self._rung(0, tried), strict=True))
        hopeful = survivors(promising, lambda index: self._worth(index, first[index]))
        going = [index for index in tried if first[index]] if audit else hopeful
        second = dict(zip(going, self._rung(1, going), strict=True))
        scores = {index: score for index, score in second.items() if score}
        if not scores:
            raise TrainingError(
                f"step {self.number}: the loss of every proposal became infinite; give a short recipe of a lower learning rate"
            )
        index = best(list(scores), lambda index: self._worth(index, scores[index]))
        missed = None
        if audit:
            usual = max((scores[other].accuracy for other in hopeful if other in scores), default=0.0)
            missed = 0.0 if index in hopeful else scores[index].accuracy - usual
        return Choice(index, self.result(index, 1), scores[index], len(tried) - len(going), missed)

    def _slice(self, indices: Sequence[int]) -> None:
        """Write these proposals' networks, weights taken from the step's start."""
        slicer = None
        for done, index in enumerate(indices, start=1):
            proposal = self.proposals[index]
            path = self.folder / f"{index:03}.start.pt"
            if not path.exists():
                slicer = slicer or Slicer.of(self.start, self.data, self.settings)
                save_checkpoint(path, slicer.cut(proposal.counts, proposal.dropped))
            self.events.progress(f"step {self.number}: making proposals", done, len(indices))

    def _rung(self, rung: int, indices: Sequence[int]) -> list[Score | None]:
        """Scores of these proposals: untrained (0), or fine-tuned (1)."""
        short = self.settings.short
        images = short.length(len(self.data.train))
        jobs = [
            Job(
                start=self.result(index, 0) if rung else self.folder / f"{index:03}.start.pt",
                result=self.result(index, rung),
                recipe=dataclasses.replace(short, images=images, epochs=None) if rung else None,
                seed=self.settings.seed,
                skip_images=(self.number - 1) * images,
                judge_every=1 if rung else max(1, min(SHARE, len(self.data.validation) // JUDGED)),
            )
            for index in indices
        ]
        what = f"step {self.number}: " + ("hopeful proposals fine-tuned" if rung else "proposals judged")
        self.events.progress(what, 0, len(jobs))
        return self.tuner.run(jobs, on_done=lambda done: self.events.progress(what, done, len(jobs)))

    def _worth(self, index: int, score: Score | None) -> Worth:
        saved_ms = self.before.predicted_ms - self.proposals[index].predicted_ms
        return worth(self.settings.rule, score, saved_ms=saved_ms, accuracy_before=self.before.accuracy)
