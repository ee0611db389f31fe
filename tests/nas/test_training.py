"""Training learns, repeats itself under a seed, survives being killed, and says so when it diverges."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from nas.checkpoint import Checkpoint, load_checkpoint, pack, save_checkpoint, unpack
from nas.data import Batches, Split
from nas.errors import CheckpointError, Diverged, TrainingError
from nas.evaluation import evaluate
from nas.optimisation import class_weights, cross_entropy, learning_rate
from nas.recipe import Recipe
from nas.training import TrainingResult, train
from searchspace.errors import NasError
from searchspace.network import Network
from tests.nas.learning import shapes, small

DATA = shapes()
BRIEF = Recipe(epochs=2.5, batch_size=16, lr=0.1, label_smoothing=0.1, ema_decay=0.9, clip_norm=5.0)


def same_weights(one: TrainingResult, other: TrainingResult) -> bool:
    states = one.checkpoint.state, other.checkpoint.state
    return all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_learns() -> None:
    result = train(small(), DATA, Recipe(epochs=12, batch_size=16, lr=0.1, flip=False))
    assert result.accuracy > 0.9
    assert sum(result.losses[-5:]) < 0.5 * sum(result.losses[:5])
    assert result.images == 12 * len(DATA.train)
    assert [point.images for point in result.curve] == [len(DATA.train) * epoch for epoch in range(1, 13)]
    assert result.images_per_second > 0


def test_a_seed_gives_the_same_weights_and_another_gives_others() -> None:
    one, other = (train(small(dropout=0.3), DATA, BRIEF, seed=7) for _ in range(2))
    assert same_weights(one, other)
    assert one.losses == other.losses
    assert one.curve == other.curve
    assert not same_weights(one, train(small(dropout=0.3), DATA, BRIEF, seed=8))


def test_the_callers_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    train(small(), DATA, Recipe(images=32, batch_size=16))
    assert torch.equal(torch.get_rng_state(), before)


def test_result_is_a_checkpoint_of_what_was_judged(tmp_path: Path) -> None:
    result = train(small(), DATA, BRIEF)
    save_checkpoint(tmp_path / "network.pt", result.checkpoint)
    loaded = load_checkpoint(tmp_path / "network.pt")
    judged = evaluate(loaded.network(), DATA.validation, DATA)
    assert judged.accuracy == loaded.metrics["accuracy"] == result.accuracy
    assert judged.loss == pytest.approx(result.loss, rel=1e-5)
    assert loaded.recipe == BRIEF.to_dict()
    assert loaded.classes == DATA.classes


def test_steps_are_those_of_plain_torch() -> None:
    """Fused, channels-last and grouped as they are, the steps are those of a textbook loop."""
    recipe = Recipe(epochs=1, batch_size=16, lr=0.05, weight_decay=0.01, label_smoothing=0.2, clip_norm=1.0)
    start = train(small(), DATA, Recipe(images=16, batch_size=16, lr=1e-12)).checkpoint
    network = start.network().train()
    vectors = [one for one in network.parameters() if one.ndim == 1]
    others = [one for one in network.parameters() if one.ndim > 1]
    groups: list[dict[str, Any]] = [{"params": others, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, fused=False, foreach=False)
    from nas.optimisation import augmentation

    batches = Batches(split=DATA.train, data=DATA, batch_size=16, augment=augmentation(recipe, DATA), seed=3)
    losses = []
    for step, (images, labels) in enumerate(batches.epoch()):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps=len(batches))
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images.contiguous()), labels, label_smoothing=0.2)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    result = train(start, DATA, recipe, seed=3)
    assert result.losses == pytest.approx(losses, rel=1e-3)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(result.checkpoint.state[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_label_smoothing_keeps_the_loss_above_its_entropy() -> None:
    smoothing, classes = 0.3, len(DATA.classes)
    target = [1 - smoothing + smoothing / classes, *[smoothing / classes] * (classes - 1)]
    entropy = -sum(share * torch.tensor(share).log().item() for share in target)
    recipe = Recipe(epochs=8, batch_size=16, lr=0.1, flip=False, label_smoothing=smoothing)
    result = train(small(), DATA, recipe)
    assert min(result.losses) >= entropy - 1e-5
    assert result.loss < result.losses[0]


def test_the_average_is_an_average_of_what_was_there() -> None:
    plain = Recipe(images=16 * 3, batch_size=16, lr=0.1)
    averaged = Recipe(images=16 * 3, batch_size=16, lr=0.1, ema_decay=0.15)
    name = "blocks.0.conv.weight"
    # a schedule over three steps, stopped after one, two and three
    stops = [train(small(), DATA, plain, stop=_after(count)).checkpoint.state[name] for count in (1, 2, 3)]
    start = train(small(), DATA, averaged, stop=_after(1)).checkpoint.state[name]
    # decays are min(0.15, (1 + t) / (10 + t)): 1/10, then 0.15, 0.15
    second = 0.15 * start + 0.85 * stops[1]
    third = 0.15 * second + 0.85 * stops[2]
    result = train(small(), DATA, averaged).checkpoint
    torch.testing.assert_close(result.state[name], third)
    assert not torch.equal(result.state[name], stops[2])
    assert result.state["blocks.0.conv.norm.num_batches_tracked"] == 3


def test_dropout_of_the_recipe_is_used_but_not_in_the_result() -> None:
    recipe = Recipe(images=64, batch_size=16, dropout=0.9)
    result = train(small(), DATA, recipe)
    assert result.checkpoint.architecture == small()
    assert result.losses != train(small(), DATA, Recipe(images=64, batch_size=16)).losses


def test_a_rung_goes_on_from_the_one_before() -> None:
    first = train(small(), DATA, BRIEF)
    second = train(first.checkpoint, DATA, Recipe(images=16, batch_size=16, lr=1e-12), skip_images=first.images)
    for name, tensor in first.checkpoint.state.items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(second.checkpoint.state[name], tensor, msg=name)
    again = train(first.checkpoint, DATA, Recipe(images=16, batch_size=16, lr=1e-12))
    assert again.losses != second.losses, "skipped images were served again"


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw", "lr": 0.003},
        {"precision": "bf16"},
        {"channels_last": False},
        {"schedule": "cosine"},
        {"rand_augment": 2},
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"drop_path": 0.3},
    ],
)
def test_every_option_trains(changes: dict[str, Any]) -> None:
    length = {"images": 160, "batch_size": 16}
    changed, plain = (train(small(), DATA, Recipe(**length, **some)) for some in (changes, {}))
    assert changed.losses == pytest.approx(plain.losses, rel=0.35)
    if "channels_last" not in changes:  # which changes nothing but the speed
        assert changed.losses != plain.losses


def test_best_and_last() -> None:
    """The best point's weights are kept, although training went on, and are the same after a resumption."""
    recipe = Recipe(epochs=6, batch_size=16, lr=0.5, warm_up=0, schedule="constant")
    result = train(small(), DATA, recipe)
    qualities = [look.quality for look in result.curve]
    assert result.best.metrics["accuracy"] == max(qualities)[0]
    assert max(qualities) > qualities[-1], "a case where the last is the best tells nothing"
    for checkpoint in (result.best, result.checkpoint):
        judged = evaluate(checkpoint.network(), DATA.validation, DATA)
        assert judged.accuracy == checkpoint.metrics["accuracy"]
    assert result.best.metrics["images"] == result.curve[qualities.index(max(qualities))].images


def test_best_survives_a_resumption(tmp_path: Path) -> None:
    recipe = Recipe(epochs=6, batch_size=16, lr=0.5, warm_up=0, schedule="constant")
    undisturbed = train(small(), DATA, recipe)
    state = tmp_path / "state.pt"
    for count in (12, 7):
        train(small(), DATA, recipe, state_file=state, stop=_after(count))
    resumed = train(small(), DATA, recipe, state_file=state)
    assert same_weights(resumed, undisturbed)
    if resumed.best.metrics["images"] == undisturbed.best.metrics["images"]:  # being stopped adds points to the curve
        assert all(torch.equal(resumed.best.state[name], one) for name, one in undisturbed.best.state.items())


def test_early_stop(tmp_path: Path) -> None:
    recipe = Recipe(epochs=40, batch_size=16, lr=0.3, warm_up=0, schedule="constant", early_stop=3)
    state = tmp_path / "state.pt"
    result = train(small(), DATA, recipe, state_file=state)
    assert result.finished
    assert result.images < 40 * len(DATA.train)
    best = max(range(len(result.curve)), key=lambda index: (result.curve[index].quality, -index))
    assert len(result.curve) - 1 - best == 3
    assert same_weights(train(small(), DATA, recipe, state_file=state), result), "a finished training was gone on with"


def test_classes_count_alike_where_that_is_wanted() -> None:
    rows = torch.cat([torch.nonzero(DATA.train.labels == 0)[:, 0], torch.nonzero(DATA.train.labels == 1)[:3, 0]])
    split = Split(DATA.train.images[rows], DATA.train.labels[rows])
    data = dataclasses.replace(
        DATA, train=split, class_counts=tuple(torch.bincount(split.labels, minlength=3).tolist())
    )
    recipe = Recipe(images=300, batch_size=10, lr=0.02)

    def share_of_rare(balance: bool) -> float:
        network = train(small(), data, dataclasses.replace(recipe, balance=balance)).checkpoint.network()
        images = (DATA.test.images.float() / 255 - 0.4) / 0.2
        with torch.inference_mode():
            return float(network(images).softmax(1)[:, 1].mean())

    assert share_of_rare(True) > share_of_rare(False)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_in_a_balanced_loss_every_class_has_an_equal_share(smoothing: float) -> None:
    """Over an epoch, however images fall into batches; of images that are alike to the network."""
    labels = torch.tensor([0] * 34 + [1] * 4 + [2] * 2)[torch.randperm(40)]
    data = dataclasses.replace(
        DATA, train=Split(DATA.train.images[:40], labels), class_counts=tuple(torch.bincount(labels).tolist())
    )
    weights = class_weights(Recipe(epochs=1, balance=True), data)
    shares = torch.zeros(3)
    for batch in labels.split(8):
        logits = F.one_hot(batch, 3).float().requires_grad_()
        cross_entropy(logits, batch, weights, smoothing=smoothing).backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        shares += torch.stack([logits.grad[batch == label].abs().sum() for label in range(3)])
    torch.testing.assert_close(shares / shares.sum(), torch.full((3,), 1 / 3))
    everything = torch.randn(40, 3)
    torch.testing.assert_close(
        cross_entropy(everything, labels, torch.ones(3), smoothing=smoothing),
        F.cross_entropy(everything, labels, label_smoothing=smoothing),
    )


def test_drop_path_leaves_branches_out_while_training_only() -> None:
    torch.manual_seed(0)
    network = Network(small(), drop_path=0.9)
    plain = Network(small())
    plain.load_state_dict(network.state_dict())
    images = torch.randn(64, 1, 8, 8)
    torch.testing.assert_close(network.eval()(images), plain.eval()(images))
    assert not torch.allclose(network.train()(images), plain.train()(images))


def test_divergence_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(Diverged, match=r"the loss became (nan|inf) within \d+ images .* 1e\+18; lower it"):
        train(small(), DATA, Recipe(epochs=3, batch_size=16, lr=1e18, warm_up=0))


def test_data_of_another_kind_is_refused() -> None:
    for change, message in (
        ({"classes": 5}, "classes must be the architecture's, which has 5, got 3"),
        ({"channels": 3}, "channels"),
        ({"resolution": 16}, "resolution"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(dataclasses.replace(small(), **change), DATA, BRIEF)


def _after(count: int) -> Any:
    asked = iter(range(1, 10**6))
    return lambda: next(asked) >= count


class Killed(BaseException):
    """Stands in for a signal that cannot be caught."""


@pytest.mark.parametrize("images", [160, 200])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_after_a_kill_equals_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Any, images: int
) -> None:
    """Killed at every writing of the state in turn, before and after it is renamed."""
    recipe = Recipe(images=images, batch_size=16, optimizer=optimizer, lr=0.01, ema_decay=0.9, precision="fp16",
                    rand_augment=2, mixup=0.2, cutmix=1.0, drop_path=0.2)  # fmt: skip
    start = small(dropout=0.3)
    undisturbed = train(start, DATA, recipe, seed=1)
    state, real, moments = tmp_path / "state.pt", os.fsync, iter([2, 1, 3, 1, 2])

    for moment in moments:
        left = moment

        def fsync(descriptor: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(Killed):
            train(start, DATA, recipe, seed=1, state_file=state, save_every_s=0)
        monkeypatch.setattr(os, "fsync", real)
    resumed = train(start, DATA, recipe, seed=1, state_file=state, save_every_s=0)
    assert same_weights(resumed, undisturbed)
    assert (resumed.losses, resumed.curve) == (undisturbed.losses, undisturbed.curve)
    assert resumed.finished


SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from nas.recipe import Recipe
from nas.training import train
from tests.nas.learning import shapes, small
torch.set_num_threads(int(sys.argv[2]))
def kill(what, done, total):
    if done >= 100:
        os.kill(os.getpid(), signal.SIGKILL)
recipe = Recipe(**{recipe!r})
train(small(dropout=0.3), shapes(), recipe, seed=5, state_file=Path(sys.argv[1]), save_every_s=0, on_progress=kill)
"""


def test_kill_9(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    script = SCRIPT.replace("{recipe!r}", repr(BRIEF.to_dict()))
    command = [sys.executable, "-c", script, str(state), str(torch.get_num_threads())]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
    seen: list[int] = []
    resumed = train(
        small(dropout=0.3),
        DATA,
        BRIEF,
        seed=5,
        state_file=state,
        on_progress=lambda what, done, total: seen.append(done),
    )
    assert seen[0] > 80, "began anew"
    assert same_weights(resumed, train(small(dropout=0.3), DATA, BRIEF, seed=5))


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    first = train(small(), DATA, BRIEF, state_file=state)
    steps: list[int] = []
    again = train(small(), DATA, BRIEF, state_file=state, on_progress=lambda what, done, total: steps.append(done))
    assert not steps
    assert same_weights(first, again)
    assert (first.curve, first.losses, first.seconds) == (again.curve, again.losses, again.seconds)


def test_stopped_early_and_resumed(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    part = train(small(), DATA, BRIEF, state_file=state, stop=_after(4))
    assert (part.images, part.finished) == (64, False)
    rest = train(small(), DATA, BRIEF, state_file=state)
    assert rest.finished
    assert same_weights(rest, train(small(), DATA, BRIEF))


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    result = train(small(), DATA, BRIEF, state_file=state)
    other: list[tuple[Any, Any, Recipe, int]] = [
        (small(), DATA, dataclasses.replace(BRIEF, lr=0.2), 0),
        (small(), DATA, BRIEF, 1),
        (small(dropout=0.1), DATA, BRIEF, 0),
        (small(), shapes(seed=1), BRIEF, 0),
        (result.checkpoint, DATA, BRIEF, 0),
    ]
    for start, data, recipe, seed in other:
        with pytest.raises(CheckpointError, match="holds another training"):
            train(start, data, recipe, seed=seed, state_file=state)


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    train(small(), DATA, BRIEF, state_file=state)
    content = unpack(state, what="training state")
    for change in ({"network": {}}, {"losses": torch.zeros(3)}, {"curve": [{"x": 1}]}, {"optimizer": {}}, {"step": 99}):
        state.write_bytes(pack(content | change))
        with pytest.raises(CheckpointError, match="damaged; remove it to start anew"):
            train(small(), DATA, BRIEF, state_file=state)
    state.write_bytes(pack(content | {"format": 0}))
    with pytest.raises(CheckpointError, match="format 2 is needed"):
        train(small(), DATA, BRIEF, state_file=state)
    state.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="a training state is needed"):
        train(small(), DATA, BRIEF, state_file=state)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NasError, match="No space left on device"):
        train(small(), DATA, BRIEF, state_file=tmp_path / "state.pt")
    assert not list(tmp_path.iterdir())


def test_evaluation_counts_right_answers() -> None:
    torch.manual_seed(0)
    network = Network(small())
    images = (DATA.test.images.float() / 255 - 0.4) / 0.2
    logits = network.eval()(images)
    network.train()
    result = evaluate(network, DATA.test, DATA)
    assert network.training, "its mode was changed"
    assert result.images == len(DATA.test)
    assert result.accuracy == (logits.argmax(1) == DATA.test.labels).sum().item() / len(DATA.test)
    assert result.loss == pytest.approx(F.cross_entropy(logits, DATA.test.labels).item(), rel=1e-5)
    assert evaluate(network, DATA.test, DATA, batch_size=7).loss == pytest.approx(result.loss, rel=1e-5)


def test_results_are_checkpoints_of_float32_whatever_the_precision() -> None:
    result = train(small(), DATA, Recipe(images=32, batch_size=16, precision="bf16"))
    assert isinstance(result.checkpoint, Checkpoint)
    assert result.checkpoint.state["blocks.0.conv.weight"].dtype is torch.float32
