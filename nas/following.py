"""A line for every candidate that is finished, for logs: what a progress bar shows is nowhere to be seen later."""

from collections.abc import Callable

from optuna.trial import FrozenTrial

from nas.claims import FAILED, WORKER
from nas.outcomes import ADOPTED, COMPLETE, ERROR, PRUNED, Progress
from nas.sampling.history import CANDIDATE, OUTCOME, RUNGS


class Following:
    """Tells of candidates that are finished after it was first shown where the study stands.

    Args:
        say: told one line of each.
        worker: whose candidates; None: everybody's.
    """

    def __init__(self, say: Callable[[str], None], *, worker: str | None = None) -> None:
        self._say, self._worker = say, worker
        self._known: set[int] | None = None

    def __call__(self, state: Progress) -> None:
        """Look where the study stands."""
        ended = [trial for trial in state.trials if trial.state.is_finished() and self._is_followed(trial)]
        known, self._known = self._known, {trial.number for trial in ended}
        for trial in ended:
            if known is not None and trial.number not in known:
                self._say(f"{line(trial)} ({state.trained} of {state.wanted} trained)")

    def _is_followed(self, trial: FrozenTrial) -> bool:
        attributes = trial.user_attrs
        trained = attributes.get(OUTCOME) in (COMPLETE, PRUNED, FAILED) and ADOPTED not in attributes
        return trained and self._worker in (None, attributes.get(WORKER))


def line(trial: FrozenTrial) -> str:
    """How a finished candidate did."""
    attributes = trial.user_attrs
    name, rungs = attributes[CANDIDATE]["fingerprint"], attributes.get(RUNGS, ())
    if attributes[OUTCOME] == FAILED:
        return f"candidate {name} failed: {attributes.get(ERROR, 'its loss became infinite, or it killed its process')}"
    last = rungs[-1]
    score = f"score {last['value']:.3g}" if last["accuracy"] is None else f"accuracy {last['accuracy']:.1%}"
    how = "to the last rung" if attributes[OUTCOME] == COMPLETE else f"stopped after rung {len(rungs)}"
    return f"candidate {name} {how}: {score}, predicted {attributes[CANDIDATE]['predicted_ms']:.3g} ms"
