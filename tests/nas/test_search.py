"""The whole search on real images and a pretended device: what it promises of its front, its files and its resumption."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from latency.device import Device
from latency.errors import DeviceUnreachable, UnmeasuredKernel
from latency.fake import FakeDevice, true_ms
from latency.settings import RuntimeSettings
from latency.timing import Slice, Timing
from nas.checkpoint import Checkpoint, load_checkpoint
from nas.costs import costs_of
from nas.data import Data, load_data
from nas.deployment import accuracy, first_images
from nas.errors import BudgetError, Diverged, StudyError
from nas.fidelity import Fidelity
from nas.finalists import front_of, pareto_front
from nas.limits import latency_limit, size_limits
from nas.recipe import load_recipe
from nas.run import Run, open_run
from nas.search import SearchResult, SearchSettings, run_search
from nas.shipping.int8 import MAX_DROP
from nas.storage import STUDY_FILE
from nas.threads import Setup
from nas.training import TrainingResult, train
from searchspace.architecture import Architecture, lower
from searchspace.sampling import RandomSuggest, every
from searchspace.space import parse_space
from searchspace.width import set_width, widths

SPACE = parse_space(
    """
    format: 1
    stem: {width: [8, 16], stride: 1}
    stages:
      - {depth: [1, 2], width: [16, 24], stride: 2, blocks: {uib: {expansion: [2, 4]}, fire: {bypass: [none, conv]}}}
    head: {kind: classic, features: [32, 64]}
    """
)
SETTINGS = SearchSettings(
    trials=6, finalists=3, ladder=(Fidelity(images=256), Fidelity(images=512)), final_epochs=0.5, seed=1, workers=1
)


@dataclass(frozen=True)
class Guess:
    ms: float

    @property
    def low_ms(self) -> float:
        return self.ms * 0.95

    @property
    def high_ms(self) -> float:
        return self.ms * 1.05


class Model:
    """Knows what the pretended device roughly takes."""

    def predict(self, architecture: Architecture) -> Guess:
        graph = lower(architecture)
        return Guess(0.02 + 0.0015 * len(graph) + 3e-8 * graph.macs)


class Silence:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.finished: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def done(self, message: str) -> None:
        self.finished.append(message)

    def progress(self, what: str, done: int, total: int | None) -> None:
        assert total is None or 0 <= done <= total


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load_data("digits", cache=tmp_path_factory.mktemp("cache"))


def search(
    folder: Path,
    data: Data,
    settings: SearchSettings = SETTINGS,
    events: Silence | None = None,
    device: Device | None = None,
) -> SearchResult:
    space = SPACE.adapt(channels=1, classes=10, resolution=data.resolution)
    threads = torch.get_num_threads()
    with open_run(folder, kind="search", request={"budget_ms": settings.budget_ms}) as run:
        try:
            return run_search(
                run,
                space=space,
                data={data.resolution: data},
                target="fake",
                device=device or FakeDevice(),
                runtime=RuntimeSettings(),
                model=Model(),
                settings=settings,
                events=events or Silence(),
            )
        finally:
            torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def found(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult]:
    folder = tmp_path_factory.mktemp("run")
    return folder, search(folder, digits)


def test_the_front_is_trained_measured_and_not_dominated(found: tuple[Path, SearchResult]) -> None:
    folder, result = found
    assert json.loads((folder / STUDY_FILE).read_text()) == {"study": result.study}
    assert result.outcomes["complete"] + result.outcomes.get("pruned", 0) == SETTINGS.trials
    assert len(result.finalists) >= SETTINGS.finalists
    assert list(result.front) == pareto_front(result.finalists)
    for finalist in result.finalists:
        assert finalist.latency_ms > 0
        assert finalist.tried.low_ms <= result.budget_ms
        assert load_checkpoint(finalist.checkpoint).metrics["accuracy"] == finalist.accuracy
    if result.best is not None:
        assert result.best.latency_ms <= result.budget_ms


def test_every_exported_file_predicts_as_its_checkpoint(found: tuple[Path, SearchResult], digits: Data) -> None:
    _, result = found
    images = first_images(digits.test, digits, images=8)
    for finalist in result.finalists:
        session = onnxruntime.InferenceSession(finalist.shipped.onnx)
        logits = np.concatenate([session.run(None, {"image": image[None].numpy()})[0] for image in images])
        with torch.inference_mode():
            wanted = load_checkpoint(finalist.checkpoint).network()(images).numpy()
        assert np.abs(logits - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_every_training_of_a_search_has_the_layout_that_was_measured_once(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.search.known_setup", lambda *_, **__: Setup(1, channels_last=False))
    search(tmp_path, digits, dataclasses.replace(SETTINGS, trials=2, finalists=1))
    trained = [load_checkpoint(path) for path in tmp_path.rglob("*.pt")]
    assert len(trained) > 2
    assert {one.recipe["channels_last"] for one in trained} == {False}


def test_the_same_request_again_trains_nothing_and_finds_the_same(
    found: tuple[Path, SearchResult], digits: Data
) -> None:
    folder, result = found
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")}
    again = search(folder, digits)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")} == files
    assert again.outcomes == result.outcomes
    assert [one.tried.architecture for one in again.finalists] == [one.tried.architecture for one in result.finalists]


ALSO = latency_limit("phone", 1.0, Model())


@pytest.mark.parametrize(
    ("against", "other"), [(("params",), ("ms", "params")), (("ms", "phone", "peak-bytes"), ("ms", "peak-bytes"))]
)
def test_a_front_against_what_was_asked_for_is_resumed_with_that_alone(
    digits: Data, tmp_path: Path, against: tuple[str, ...], other: tuple[str, ...]
) -> None:
    settings = dataclasses.replace(SETTINGS, pareto=True, limits=(ALSO,), against=against, trials=4, finalists=3)
    result = search(tmp_path, digits, settings)
    assert result.against == against
    assert result.outcomes["complete"] + result.outcomes.get("pruned", 0) == 4
    assert list(result.front) == front_of(result.finalists, budget_ms=result.budget_ms)
    assert result.best is None or result.best in result.front
    for finalist in result.finalists:
        network = finalist.tried.architecture
        assert finalist.costs == costs_of(network, finalist.latency_ms, against=against, limits=(ALSO,))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")}
    again = search(tmp_path, digits, settings)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")} == files
    assert [one.costs.keys() for one in again.front] == [one.costs.keys() for one in result.front]
    for asked in (other, ("ms",)):
        with pytest.raises(StudyError, match="was made for another against; give the same again"):
            search(tmp_path, digits, dataclasses.replace(settings, against=asked))


def test_costs_that_nothing_says_are_refused() -> None:
    for change in ({"pareto": False}, {"pareto": True, "limits": ()}):
        with pytest.raises(StudyError, match="--against"):
            dataclasses.replace(SETTINGS, **{"limits": (ALSO,), "against": ("phone",), **change})  # type: ignore[arg-type]


def test_more_trials_keep_what_was_trained(found: tuple[Path, SearchResult], digits: Data) -> None:
    folder, _ = found
    before = set((folder / "candidates").iterdir())
    more = search(folder, digits, dataclasses.replace(SETTINGS, trials=8))
    assert before < set((folder / "candidates").iterdir())
    assert more.outcomes["complete"] + more.outcomes.get("pruned", 0) == 8


def test_same_seed_same_search(found: tuple[Path, SearchResult], digits: Data, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    first = search(tmp_path / "one", digits, dataclasses.replace(SETTINGS, trials=2, finalists=1))
    second = search(tmp_path / "other", digits, dataclasses.replace(SETTINGS, trials=2, finalists=1))
    assert [(one.tried.architecture, one.accuracy) for one in first.finalists] == [
        (one.tried.architecture, one.accuracy) for one in second.finalists
    ]


def test_a_budget_nothing_meets_names_the_fastest(digits: Data, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"got 1e-05 ms; the fastest found is predicted at 0\.0\d+ ms"):
        search(tmp_path, digits, dataclasses.replace(SETTINGS, budget_ms=1e-5))
    assert not (tmp_path / "study.db").exists()


def test_without_a_budget_one_is_chosen_said_and_kept(digits: Data, tmp_path: Path) -> None:
    events = Silence()
    one = search(tmp_path, digits, dataclasses.replace(SETTINGS, trials=1, finalists=1), events)
    assert any(f"no budget was given: {one.budget_ms:g} ms" in note for note in events.notes)
    with open_run(tmp_path, kind="search", request={"budget_ms": None}) as run:
        assert isinstance(run, Run)
        assert run.once("budget_ms", lambda: -1.0) == one.budget_ms


def test_candidates_of_several_resolutions_are_each_trained_at_their_own(digits: Data, tmp_path: Path) -> None:
    larger = load_data("digits", resolution=12, cache=tmp_path / "cache")
    space = dataclasses.replace(SPACE, resolution=(8, 12)).adapt(channels=1, classes=10)
    with open_run(tmp_path / "run", kind="search", request={}) as run:
        run_search(
            run,
            space=space,
            data={8: digits, 12: larger},
            target="fake",
            device=FakeDevice(),
            runtime=RuntimeSettings(),
            model=Model(),
            settings=dataclasses.replace(SETTINGS, trials=10, finalists=1),
            events=Silence(),
        )
    candidates = (tmp_path / "run" / "candidates").glob("*.rung0.pt")
    assert {load_checkpoint(path).architecture.resolution for path in candidates} == {8, 12}


def test_without_a_device_the_front_goes_by_predictions_and_8_bits_are_what_ships(digits: Data, tmp_path: Path) -> None:
    space = SPACE.adapt(channels=1, classes=10, resolution=digits.resolution)
    with open_run(tmp_path, kind="search", request={}) as run:
        result = run_search(
            run,
            space=space,
            data={digits.resolution: digits},
            target="published",
            device=None,
            runtime=RuntimeSettings(precision="int8"),
            model=Model(),
            settings=dataclasses.replace(SETTINGS, trials=2, finalists=2),
            events=Silence(),
        )
    assert result.front and list(result.front) == pareto_front(result.finalists)
    for finalist in result.finalists:
        assert finalist.measured is None
        assert finalist.latency_ms == finalist.tried.predicted_ms
        model = finalist.shipped.onnx.read_bytes()
        assert "QuantizeLinear" in {node.op_type for node in onnx.load_from_string(model).graph.node}
        assert accuracy(model, digits.validation, digits) == finalist.accuracy
        assert load_checkpoint(finalist.checkpoint).metrics["accuracy"] == finalist.shipped.trained_accuracy
        assert finalist.shipped.trained_accuracy - finalist.accuracy <= MAX_DROP + 1e-9


class AwayDevice(FakeDevice):
    """Gives no answer as long as it is away."""

    away = True

    def measure(self, models, **options):
        if self.away:
            raise DeviceUnreachable("board: Connection refused")
        return super().measure(models, **options)


def test_a_device_that_went_away_is_measured_on_when_it_is_back(digits: Data, tmp_path: Path) -> None:
    device, heard = AwayDevice(), Silence()
    settings = dataclasses.replace(SETTINGS, trials=2, finalists=2)
    without = search(tmp_path, digits, settings, heard, device=device)
    assert without.front
    assert {(one.measured, one.unmeasured) for one in without.finalists} == {(None, "board: Connection refused")}
    assert any("go by their predictions" in note for note in heard.notes)
    device.away = False
    again = search(tmp_path, digits, settings, device=device)
    assert [one.accuracy for one in again.finalists] == [one.accuracy for one in without.finalists]
    assert all(one.measured is not None and one.unmeasured is None for one in again.finalists)


def test_other_data_in_the_same_run_is_refused(found: tuple[Path, SearchResult], digits: Data) -> None:
    folder, _ = found
    with pytest.raises(StudyError, match="was made for another data"):
        search(folder, dataclasses.replace(digits, fingerprint="other"))


def test_candidates_whose_checkpoints_are_gone_are_trained_once_more(digits: Data, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, trials=1, finalists=1)
    first = search(tmp_path, digits, settings)
    for name in ("candidates", "finalists"):
        shutil.rmtree(tmp_path / name)
    again = search(tmp_path, digits, settings)
    assert again.outcomes == first.outcomes
    assert [one.accuracy for one in again.finalists] == [one.accuracy for one in first.finalists]


def test_a_model_that_can_predict_nothing_is_refused(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(self: Model, architecture: Architecture) -> Guess:
        raise UnmeasuredKernel("a kernel was never measured")

    monkeypatch.setattr(Model, "predict", predict)
    with pytest.raises(StudyError, match=r"it can predict none of \d+: measure some by `nas profile`"):
        search(tmp_path, digits)


def test_finalists_go_to_the_place_that_all_machines_reach(digits: Data, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra places is not installed")
    shared = tmp_path / "shared"
    settings = dataclasses.replace(SETTINGS, trials=2, finalists=1, checkpoints=f"file://{shared}/")
    result = search(tmp_path / "run", digits, settings)
    kept = {path.relative_to(shared / "finalists"): path.read_bytes() for path in (shared / "finalists").rglob("*.*")}
    own = [path for one in result.finalists for path in (one.checkpoint, one.shipped.onnx)]
    assert kept == {Path(path.name): path.read_bytes() for path in own}
    assert len(list(shared.glob("*.rung1.pt"))) >= len(result.finalists)
    with pytest.raises(StudyError, match="holds checkpoints of another search"):
        search(tmp_path / "other", digits, dataclasses.replace(settings, seed=settings.seed + 1))


@pytest.mark.slow
def test_processes_side_by_side_find_a_front_and_say_how_far_each_rung_could_be_trusted(
    digits: Data, tmp_path: Path
) -> None:
    ladder = (Fidelity(zero_cost="params"), Fidelity(images=256), Fidelity(images=256))
    settings = dataclasses.replace(
        SETTINGS, trials=4, finalists=2, workers=2, ladder=ladder, score="loss", warm_start=True
    )
    events = Silence()
    result = search(tmp_path, digits, settings, events)
    assert result.outcomes["complete"] + result.outcomes.get("pruned", 0) == 4
    assert list(result.front) == pareto_front(result.finalists)
    assert len([line for line in events.finished if line.startswith("candidate ")]) == 4
    assert "2 of 2 finalists trained" in events.finished
    assert [rung.rung for rung in result.rungs] == ["params", "256", "256"]
    untrained, first, last = result.rungs
    assert untrained.to_next == untrained.params_to_next
    assert untrained.warning is None or untrained.warning in events.notes
    assert first.to_full.candidates == last.to_full.candidates == len(result.finalists)
    assert last.to_next == last.to_full
    assert search(tmp_path, digits, settings).outcomes == result.outcomes


def test_candidates_whose_loss_becomes_infinite_fail_and_a_search_of_nothing_else_says_so(
    digits: Data, tmp_path: Path
) -> None:
    absurd, events = dataclasses.replace(load_recipe("brief"), lr=1e30), Silence()
    with pytest.raises(StudyError, match=r"the loss of 3 of 3 became infinite; .* learning rate of --recipe"):
        search(tmp_path, digits, dataclasses.replace(SETTINGS, trials=3, recipe=absurd), events)
    assert len([line for line in events.finished if "failed: its loss became infinite" in line]) == 3
    with pytest.raises(StudyError, match="was made for another recipe"):
        search(tmp_path, digits, dataclasses.replace(SETTINGS, trials=3))


def test_the_next_candidate_takes_the_place_of_a_finalist_whose_loss_becomes_infinite(
    found: tuple[Path, SearchResult], digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = found
    bad = result.finalists[0].tried.architecture
    more = dataclasses.replace(SETTINGS, trials=8)
    run = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(run / "finalists")

    def diverging(start: Checkpoint, *arguments: object, **options: object) -> TrainingResult:
        if start.architecture == bad:
            raise Diverged("the loss became nan within 9 images; lower it")
        return train(start, *arguments, **options)  # type: ignore[arg-type]

    events = [Silence(), Silence()]
    with monkeypatch.context() as patched:
        patched.setattr("nas.finalists.train", diverging)
        without = search(run, digits, more, events[0])
    again = search(run, digits, more, events[1])
    for heard, one in zip(events, (without, again), strict=True):
        assert len(one.finalists) >= min(SETTINGS.finalists, result.outcomes["complete"] - 1)
        assert bad not in {finalist.tried.architecture for finalist in one.finalists}
        message = f"finalist {bad.fingerprint} failed: the loss became nan within 9 images; the next candidate"
        assert len([note for note in heard.notes if note.startswith(message)]) == 1

    shutil.rmtree(run / "finalists")
    with monkeypatch.context() as patched:
        patched.setattr("nas.finalists.train", lambda *_, **__: (_ for _ in ()).throw(Diverged("the loss became nan")))
        with pytest.raises(StudyError, match=r"trained fully, but the loss of all \d became infinite"):
            search(run, digits, more)


def test_a_network_outside_of_the_space_is_searched_with(digits: Data, tmp_path: Path) -> None:
    space = SPACE.adapt(channels=1, classes=10, resolution=digits.resolution)
    drawn = min((space.sample(RandomSuggest(seed)) for seed in range(20)), key=lambda one: lower(one).macs)
    odd = set_width(drawn, widths(drawn)[0], 5)
    settings = dataclasses.replace(SETTINGS, start=(odd,), trials=1, finalists=1)
    assert [one.tried.architecture for one in search(tmp_path / "auto", digits, settings).finalists] == [odd]
    heard = Silence()
    result = search(tmp_path / "gp", digits, dataclasses.replace(settings, sampler="gp"), heard)
    assert space.contains(result.finalists[0].tried.architecture)
    assert "the sampler gp knows networks of the space only: 1 others are left out" in heard.notes


class SlowDevice(FakeDevice):
    """Takes longer for everything than the pretended device whose latencies `Model` knows."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def measure(self, models: Sequence[bytes], **options: Any) -> list[Timing]:
        def slowed(one: Slice) -> Slice:
            return dataclasses.replace(one, ns=tuple(round(ns * self.factor) for ns in one.ns))

        timings = super().measure(models, **options)
        return [dataclasses.replace(one, slices=tuple(map(slowed, one.slices))) for one in timings]


def test_a_device_that_is_slower_than_its_model_corrects_predictions_and_the_front(
    digits: Data, tmp_path: Path
) -> None:
    events = Silence()
    settings = dataclasses.replace(SETTINGS, trials=5, ladder=(Fidelity(images=256),), final_epochs=0.1)
    result = search(tmp_path, digits, settings, events, device=SlowDevice(1.5))
    assert result.correction is not None
    assert result.correction.measured >= 3 and result.correction.outside > result.correction.measured / 2
    taken = [(one.measured, one.shipped.onnx.read_bytes(), one.tried.architecture) for one in result.finalists]
    assert all(
        measured and measured.low_ms == pytest.approx(1.5 * true_ms(model), rel=1e-3) for measured, model, _ in taken
    )
    ratios = [measured.low_ms / Model().predict(architecture).ms for measured, _, architecture in taken if measured]
    assert 1 < min(ratios) <= result.correction.factor <= max(ratios)
    assert any("the latency model was off" in note for note in events.notes)
    assert list(result.front) == pareto_front(result.finalists)
    for finalist in result.finalists:
        predicted = Model().predict(finalist.tried.architecture)
        assert finalist.tried.predicted_ms == pytest.approx(predicted.ms * result.correction.factor)
    fits = [one for one in result.finalists if one.latency_ms <= result.budget_ms]
    assert (result.best is None) == (not fits)


def test_where_no_finalist_is_within_the_budget_that_is_said_with_what_to_do(digits: Data, tmp_path: Path) -> None:
    events = Silence()
    settings = dataclasses.replace(SETTINGS, trials=1, finalists=1, ladder=(Fidelity(images=64),), final_epochs=0.1)
    result = search(tmp_path, digits, settings, events, device=SlowDevice(10))
    assert result.best is None
    [said] = [note for note in events.notes if note.startswith("no finalist is within the budget")]
    assert result.front[0].tried.architecture.fingerprint in said and "--budget-ms" in said


def test_limits_that_nothing_meets_are_named_before_anything_is_begun(digits: Data, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, limits=size_limits(params=3, peak_bytes=10**9))
    with pytest.raises(BudgetError, match="--max-params must be one that some network of the space meets"):
        search(tmp_path, digits, settings)
    assert not (tmp_path / "study.db").exists()


def test_a_rare_network_within_all_limits_is_where_a_search_begins(digits: Data, tmp_path: Path) -> None:
    space = SPACE.adapt(channels=1, classes=10, resolution=digits.resolution)
    smallest = min(lower(architecture).params for architecture in every(space.sample))
    settings = dataclasses.replace(
        SETTINGS,
        trials=1,
        finalists=1,
        ladder=(Fidelity(images=64),),
        final_epochs=0.1,
        limits=size_limits(params=smallest),
        budget_ms=1e3,
    )
    result = search(tmp_path, digits, settings)
    assert [lower(one.tried.architecture).params for one in result.finalists] == [smallest]
    assert 0 <= result.feasible_share < 0.2
