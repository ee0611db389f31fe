"""The end of a search: its best candidates are trained fully, shipped, and measured on the device side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from latency.device import Device
from latency.errors import DeviceUnavailable
from latency.settings import RuntimeSettings
from latency.timing import Timing
from nas.checkpoint import load_checkpoint
from nas.correction import Correction, Reference, correction
from nas.data import Data
from nas.errors import StudyError
from nas.final_training import FinalTraining, by_worth
from nas.finalists import Finalist, Shipped, front_of, measure, notes_of, ship
from nas.joining import heard
from nas.outcomes import Tried
from nas.workers import side_by_side
from searchspace.architecture import Architecture

FRONT_AT_LEAST = 3


class Events(Protocol):
    """What a search tells whoever watches: remarks, how far the work at hand is, and, for logs, each piece of it that is done."""

    def note(self, message: str) -> None: ...
    def done(self, message: str) -> None: ...
    def progress(self, what: str, done: int, total: int | None) -> None: ...


@dataclass(frozen=True)
class Finals:
    """Full training and measuring of what the study found.

    Attributes:
        training: how finalists are trained.
        data: images at each resolution that they may have, in pixels.
        device: what they are measured on; None where latencies are published ones.
        runtime: how they run there.
        wanted: how many; up to twice as many where fewer than `FRONT_AT_LEAST` of them form the front.
        workers: processes that train.
        events: told how it goes.
        reference: a network of the latency model that is measured beside them; None where there is none.
    """

    training: FinalTraining
    data: Mapping[int, Data]
    device: Device | None
    runtime: RuntimeSettings
    wanted: int
    workers: int
    events: Events
    reference: Reference | None

    def finalists(self, tried: Sequence[Tried], budget_ms: float) -> tuple[list[Finalist], Correction | None]:
        """The best of what was tried, trained and measured; chosen again where their times say that the latency model was off."""
        shipped: dict[Architecture, Shipped] = {}
        self._tell_failed(tried)
        finalists, change = self._finished(by_worth(tried), [], shipped, budget_ms)
        found = correction(finalists, change, target=None if self.reference is None else self.reference.target)
        if found is None:
            return finalists, None
        self.events.note(str(found))
        corrected = by_worth([found.of(one) for one in tried])
        within = [one for one in corrected if one.predicted_ms <= budget_ms]
        before = {one.tried.architecture for one in finalists}
        also = [one for one in corrected if one.architecture in before]
        finalists, _ = self._finished(within or corrected, also, shipped, budget_ms)
        return finalists, found

    def _finished(
        self, candidates: Sequence[Tried], also: Sequence[Tried], shipped: dict[Architecture, Shipped], budget_ms: float
    ) -> tuple[list[Finalist], float | None]:
        """The first of `candidates`, more of them while their front is too small, and others; and how the reference changed.

        Raises:
            StudyError: none of them could be trained.
        """
        count, most = self.wanted, 2 * self.wanted
        while True:
            trained, left = self._trained(candidates, count)
            chosen = list(dict.fromkeys([*trained, *also]))
            if not chosen:
                raise StudyError(
                    f"some candidate must be trained fully, but the loss of all {len(candidates)} became infinite; check the "
                    "images and labels, or try more --trials"
                )
            for one in chosen:
                if one.architecture not in shipped:
                    shipped[one.architecture] = self._shipped(one)
            finalists, change = self._measured(chosen, [shipped[one.architecture] for one in chosen])
            enough = len(front_of(finalists, budget_ms=budget_ms)) >= min(FRONT_AT_LEAST, self.wanted)
            if enough or count == most or not left:
                return finalists, change
            count += 1

    def _trained(self, candidates: Sequence[Tried], count: int) -> tuple[list[Tried], bool]:
        """The first so many of the candidates whose loss stays finite, trained; and whether others are left."""
        usable = [one for one in candidates if self.training.failure(one) is None]
        while True:
            chosen = usable[:count]
            self._train(chosen)
            failed = [one for one in chosen if self.training.failure(one) is not None]
            if not failed:
                return chosen, len(usable) > count
            self._tell_failed(failed)
            usable = [one for one in usable if one not in failed]

    def _tell_failed(self, candidates: Sequence[Tried]) -> None:
        for one in candidates:
            reason = self.training.failure(one)
            if reason is not None:
                why = reason.partition(";")[0]
                self.events.note(
                    f"finalist {one.architecture.fingerprint} failed: {why}; the next candidate takes its place"
                )

    def _train(self, candidates: Sequence[Tried]) -> None:
        missing = self.training.missing(candidates)
        if min(self.workers, len(missing)) > 1:
            side_by_side(
                replace(self.training, candidates=tuple(missing)),
                processes=min(self.workers, len(missing)),
                on_look=self._look_at(missing),
                on_note=self.events.note,
            )
        here = replace(self.training, trainer=heard(self.training.trainer, self.events.note))
        for index, candidate in enumerate(candidates):
            label = f"training finalist {index + 1} of {len(candidates)}"

            def on_progress(what: str, done: int, total: int | None, label: str = label) -> None:
                self.events.progress(f"{label}: {what}", done, total)

            here.train(candidate, on_progress=on_progress)

    def _look_at(self, missing: Sequence[Tried]) -> Callable[[], None]:
        """Tells how many of the finalists that were missing are trained, whenever it is called."""
        told = 0

        def look() -> None:
            nonlocal told
            trained = len(missing) - len(self.training.missing(missing))
            self.events.progress("training finalists side by side", trained, len(missing))
            if trained > told:
                self.events.done(f"{trained} of {len(missing)} finalists trained")
            told = trained

        return look

    def _shipped(self, candidate: Tried) -> Shipped:
        path = self.training.path(candidate)
        for remark in notes_of(path):
            self.events.note(remark)
        shipped = ship(
            load_checkpoint(path),
            path,
            self.data[candidate.architecture.resolution],
            precision=self.runtime.precision,
            on_progress=self.events.progress,
        )
        if mirror := heard(self.training.trainer, self.events.note).mirror:
            try:
                for file in (path, shipped.onnx):
                    mirror.below("finalists").put(file)
            except StudyError as error:  # they are here, and the same command tries again
                self.events.note(str(error))
        return shipped

    def _measured(self, candidates: Sequence[Tried], shipped: Sequence[Shipped]) -> tuple[list[Finalist], float | None]:
        """Measure what was exported of the finalists, all of them and the reference interleaved.

        Returns:
            The finalists, and how much slower the reference has become; None: not known.
        """
        models = [one.onnx.read_bytes() for one in shipped]
        timings: Sequence[Timing | None] = [None] * len(models)
        reason, change = None, None
        if self.device is None:
            reason = "there is no device: its latency is known from published figures only"
        else:
            try:
                beside = [] if self.reference is None else [self.reference.model]
                found = measure(
                    self.device, [*models, *beside], settings=self.runtime, on_progress=self.events.progress
                )
                timings = found[: len(models)]
                change = None if self.reference is None else self.reference.change(found[-1])
            except DeviceUnavailable as error:  # what was trained is worth more than the time it takes
                reason = str(error)
                self.events.note(f"{error}: finalists go by their predictions; the same command measures them later")
        return [
            Finalist(candidate, self.training.path(candidate), one, timing, reason)
            for candidate, one, timing in zip(candidates, shipped, timings, strict=True)
        ], change
