"""The fastest set-up is measured once, remembered, and measured again where its memory is lost."""

from pathlib import Path

import pytest
import torch

import nas.threads
from nas.recipe import Recipe
from nas.run import Run
from nas.threads import Setup, fastest_setup, known_setup, laid_out
from tests.nas.learning import small

RECIPE = Recipe(epochs=1)


def test_a_set_up_is_one_of_those_that_were_asked_for_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        assert fastest_setup(small(), RECIPE).threads in (1, 2)
        torch.set_num_threads(6)
        with monkeypatch.context() as patched:
            patched.setattr(nas.threads, "_step_s", lambda *_: abs(torch.get_num_threads() - 4))
            assert fastest_setup(small(), RECIPE).threads == 4, "between one and all there is what may be fastest"
        torch.set_num_threads(2)
        assert fastest_setup(small(), Recipe(epochs=1, channels_last=False), threads=1) == Setup(1, channels_last=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_was_measured_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two set-ups that are as fast as each other would otherwise be chosen by chance, and round differently."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answers = [Setup(1, channels_last=True), Setup(1, channels_last=False), Setup(2, channels_last=True)]
    monkeypatch.setattr(nas.threads, "fastest_setup", lambda *_, **__: answers.pop(0))
    first = known_setup(small(), RECIPE)
    assert known_setup(small(), RECIPE) == first
    assert known_setup(small(dropout=0.3), RECIPE) != first, "another network has an answer of its own"
    (damaged,) = (path for path in tmp_path.glob("pocketnas/setups/*.json") if "true" in path.read_text())
    damaged.write_text("{")
    assert known_setup(small(), RECIPE) == Setup(2, channels_last=True)
    assert not answers


def test_where_nothing_can_be_kept_it_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pocketnas").write_text("a file in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert known_setup(small(), RECIPE, threads=1).threads == 1


def test_the_layout_of_a_run_is_chosen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answers = [Setup(1, channels_last=False), Setup(2, channels_last=True)]
    monkeypatch.setattr(nas.threads, "known_setup", lambda *_, **__: answers.pop(0))
    run = Run(tmp_path, "netadapt", {})
    for _ in range(2):
        assert laid_out(RECIPE, small(), run, what="short", threads=1).channels_last is False
    assert laid_out(RECIPE, small(), run, what="long", threads=2).channels_last is True
    told = Recipe(epochs=1, channels_last=False)
    assert laid_out(told, small(), run, what="other", threads=1) == told
