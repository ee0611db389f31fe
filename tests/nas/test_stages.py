"""Two stages: depths and widths with plain blocks first, then blocks with the depths and widths of a good network."""

import dataclasses
import random

import optuna
import pytest

from nas.errors import StudyError
from nas.limits import Limit, size_limits
from nas.outcomes import completed
from nas.sampling.candidate_sampler import SamplerName
from nas.sampling.decisions import Decisions
from nas.stages import TwoStages, parse_stages
from nas.study import STARTUP_TRIALS, attach_sampler, prepare, run_trials
from searchspace.architecture import Architecture, lower
from searchspace.blocks import UIB, Pool
from searchspace.sampling import FixedSuggest
from searchspace.space import parse_space
from tests.nas.sampling.spaces import BUDGET_MS, SPACE, predict, problem

optuna.logging.set_verbosity(optuna.logging.ERROR)
TRIALS = 24


def test_the_coarse_stage_is_plain_and_the_fine_one_keeps_a_coarse_shape() -> None:
    stages = TwoStages(Decisions.of(SPACE), TRIALS)
    study = optuna.create_study(direction="maximize")
    attach_sampler(study, problem(), "auto", seed=0, pins=stages.pins)
    prepare(
        study, stages.first(lambda one: predict(one).ms, limit_ms=BUDGET_MS, count=STARTUP_TRIALS, seed=0), local=True
    )
    run_trials(study, problem(), trials=TRIALS)
    networks = [one.architecture for one in completed(study)]
    coarse, fine = networks[: TRIALS // 2], networks[TRIALS // 2 :]
    for network in coarse:
        for block in network.blocks[1:]:
            assert isinstance(block, UIB)
            assert (block.dw_start, block.dw_mid) == (0, 3)
    assert any(not isinstance(block, UIB) or block.dw_mid != 3 for network in fine for block in network.blocks[1:])
    shapes = {stage_widths(network) for network in coarse}
    assert {stage_widths(network) for network in fine} <= shapes


def stage_widths(network: Architecture) -> tuple[int, ...]:
    """Channels after every block; a pool belongs to the block after it."""
    outputs = zip(network.shapes[1:], network.blocks, strict=False)
    return tuple(shape[0] for shape, block in outputs if not isinstance(block, Pool))


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_a_stage_that_is_used_up_is_over(sampler: SamplerName) -> None:
    space = parse_space(
        """
        format: 1
        resolution: 16
        stem: {width: 8, stride: 2}
        stages:
          - {depth: 2, width: [16, 24], stride: 2, blocks: {uib: {expansion: [2, 4], dw_mid: [0, 3, 5]}, fire: {}}}
        """
    ).adapt(channels=1, classes=4)
    stages = TwoStages(Decisions.of(space), 20)
    study = optuna.create_study(direction="maximize")
    small = dataclasses.replace(problem(), space=space, budget_ms=1e9)
    attach_sampler(study, small, sampler, seed=0, pins=stages.pins)
    run_trials(study, small, trials=20)
    found = [one.architecture.fingerprint for one in completed(study)]
    assert len(set(found)) == len(found) == 20  # though only two are coarse


def test_pins_are_a_function_of_what_is_known() -> None:
    stages = TwoStages(Decisions.of(SPACE), TRIALS)
    assert stages.pins([], random.Random(0)) == stages.plain


@pytest.mark.parametrize(("text", "two"), [("coarse,fine", True), ("coarse, fine", True), ("one", False)])
def test_names_of_stages(text: str, two: bool) -> None:
    assert parse_stages(text) is two


def test_other_stages_are_refused() -> None:
    with pytest.raises(StudyError, match="--stages must be"):
        parse_stages("fine,coarse")


def test_the_first_coarse_candidates_are_within_every_limit() -> None:
    stages = TwoStages(Decisions.of(SPACE), TRIALS)

    def first(*limits: Limit) -> list[int]:
        found = stages.first(
            lambda one: predict(one).ms, limit_ms=BUDGET_MS, limits=limits, count=STARTUP_TRIALS, seed=0
        )
        return [lower(SPACE.sample(FixedSuggest(answers))).params for answers in found]

    most = sorted(first())[STARTUP_TRIALS // 2]
    within = first(*size_limits(params=most))
    assert within and max(within) <= most
