"""Recipes are read strictly, and mean what they say: groups, schedules, lengths."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import TrainingError
from nas.optimisation import augmentation, learning_rate, make_optimizer, number_format, parameter_groups, with_dropout
from nas.recipe import Recipe, Schedule, load_recipe, shipped_recipes
from searchspace.architecture import Architecture
from searchspace.blocks import Conv, MultiQueryAttention
from searchspace.network import Network
from tests.nas.learning import shapes, small


def test_shipped_recipes_can_be_read() -> None:
    assert {"brief", "full"} <= set(shipped_recipes())
    for name in shipped_recipes():
        recipe = load_recipe(name)
        assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 2\nweight_decay: 1e-4\nflip: false\n")
    assert load_recipe(str(path)) == Recipe(epochs=2, weight_decay=1e-4, flip=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 1\nlearning_rate: 1", "unknown key 'learning_rate'; known are epochs, images"),
        ("epochs: 1\nimages: 1", "either epochs or images must be given, got epochs=1 and images=1"),
        ("lr: 0.1", "either epochs or images"),
        ("epochs: many", "epochs must be float or null, got 'many'"),
        ("images: 1.5", "images must be int or null, got 1.5"),
        ("epochs: true", "epochs must be float or null, got True"),
        ("epochs: .nan", "epochs must be a finite number above 0, got nan"),
        ("epochs: 1\nlr: 0", "lr must be a finite number above 0"),
        ("epochs: 1\nlr: .inf", "lr must be a finite number above 0, got inf"),
        ("epochs: 1\nweight_decay: -1", "weight_decay must be at least 0"),
        ("epochs: 1\nbatch_size: 1", "batch_size must be at least 2, got 1"),
        ("epochs: 1\nlabel_smoothing: 1", r"label_smoothing must be in \[0, 1\)"),
        ("epochs: 1\noptimizer: lamb", "optimizer must be one of sgd, adamw, got 'lamb'"),
        ("epochs: 1\nflip: 1", "flip must be bool or null, got 1"),
        ("- 1", "must be one mapping, got list"),
        ("a: [", "not JSON or YAML"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=message) as caught:
        load_recipe(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_name_that_is_none_lists_the_shipped(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="one of brief, compress, full"):
        load_recipe("breif")
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="UTF-8"):
        load_recipe(str(path))


@given(split=st.integers(2, 5000), batch=st.integers(2, 600), epochs=st.floats(0.01, 9), images=st.integers(1, 50_000))
def test_lengths_are_whole_batches(split: int, batch: int, epochs: float, images: int) -> None:
    for recipe, wanted in (
        (Recipe(epochs=epochs, batch_size=batch), epochs * split),
        (Recipe(images=images, batch_size=batch), images),
    ):
        size = recipe.batch(split)
        assert 2 <= size <= min(batch, split)
        length = recipe.length(split)
        assert length % size == 0
        assert length == size or wanted - size - 1 < length <= wanted + 1


def test_norms_biases_and_gammas_do_not_decay() -> None:
    blocks = (Conv(cout=8), MultiQueryAttention(heads=2, key_dim=4, value_dim=4))
    for norm in ({}, {"norm": None}):
        network = Network(Architecture(blocks, resolution=8, classes=3, **norm))
        decayed, kept = (set(group["params"]) for group in parameter_groups(network, weight_decay=0.1))
        modules = dict(network.named_modules())
        for name, parameter in network.named_parameters():
            path, _, last = name.rpartition(".")
            weight = last == "weight" and isinstance(modules[path], torch.nn.Conv2d | torch.nn.Linear)
            assert (parameter in decayed, parameter in kept) == (weight, not weight), name
        optimizer = make_optimizer(network, Recipe(epochs=1, weight_decay=0.1))
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize(("steps", "warm_up"), [(10, 0.25), (400, 0.25), (37, 0.1), (5, 0.5)])
def test_one_cycle_is_torchs(steps: int, warm_up: float) -> None:
    recipe = Recipe(epochs=1, lr=0.3, warm_up=warm_up)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.3, total_steps=steps, pct_start=warm_up, cycle_momentum=False
    )
    for step in range(steps):
        assert learning_rate(recipe, step, steps=steps) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        if step < steps - 1:
            reference.step()


@given(
    schedule=st.sampled_from(["one_cycle", "cosine", "constant"]),
    warm_up=st.floats(0, 0.99),
    steps=st.integers(1, 300),
)
def test_schedules_rise_then_fall_and_stay_in_range(schedule: Schedule, warm_up: float, steps: int) -> None:
    recipe = Recipe(epochs=1, lr=0.5, schedule=schedule, warm_up=warm_up)
    rates = [learning_rate(recipe, step, steps=steps) for step in range(steps)]
    assert all(0 <= rate <= 0.5 + 1e-12 for rate in rates)
    peak = rates.index(max(rates))
    assert peak <= warm_up * steps + 1
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_schedules_end_where_they_should() -> None:
    last = {
        name: learning_rate(Recipe(epochs=1, lr=1.0, schedule=name), 99, steps=100)
        for name in ("one_cycle", "cosine", "constant")
    }
    assert last == {"one_cycle": pytest.approx(4e-6), "cosine": pytest.approx(0, abs=1e-12), "constant": 1.0}
    assert learning_rate(Recipe(epochs=1, lr=1.0, schedule="cosine", warm_up=0), 0, steps=100) == 1.0


def test_augmentation_follows_data_unless_told() -> None:
    data = shapes()
    usual = augmentation(Recipe(epochs=1), data)
    assert usual is not None
    assert usual.flip
    assert augmentation(Recipe(epochs=1, flip=False, crop_px=0), data) is None
    told = augmentation(Recipe(epochs=1, flip=False, crop_px=2), data)
    assert told is not None
    assert (told.crop_px, told.flip) == (2, False)


def test_dropout_replaces_the_architectures() -> None:
    assert with_dropout(small(dropout=0.2), Recipe(epochs=1)) == small(dropout=0.2)
    assert with_dropout(small(dropout=0.2), Recipe(epochs=1, dropout=0.0)) == small()


def test_a_cpu_computes_in_float32_unless_told() -> None:
    cpu = torch.device("cpu")
    formats: dict[Any, Any] = {name: number_format(name, cpu) for name in ("auto", "fp32", "bf16", "fp16")}
    assert formats == {"auto": None, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
