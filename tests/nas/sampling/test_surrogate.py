"""The surrogate learns what it is shown, is unsure of what it is not, and believes unsure targets less."""

import random

import numpy as np
from scipy.stats import kendalltau

from nas.sampling.decisions import Decisions
from nas.sampling.encoding import Encoder
from nas.sampling.history import Seen, expected_finals
from nas.sampling.surrogate import fit
from tests.nas.sampling.spaces import SPACE, predict, score

DECISIONS = Decisions.of(SPACE)
ENCODER = Encoder(DECISIONS)
SOURCE = random.Random(0)
DRAWN = [DECISIONS.any(SOURCE) for _ in range(120)]
ROWS = np.array([ENCODER.encode(one.architecture, one.answers, predict(one.architecture).ms) for one in DRAWN])
SCORES = np.array([score(one.architecture).score for one in DRAWN])


def test_it_ranks_networks_that_it_has_not_seen() -> None:
    surrogate = fit(ROWS[:60], SCORES[:60], ENCODER.groups)
    mean, spread = surrogate.predict(ROWS[60:])
    assert kendalltau(mean, SCORES[60:]).statistic > 0.7
    _, known = surrogate.predict(ROWS[:60])
    assert known.mean() < spread.mean()


def test_unsure_targets_are_believed_less() -> None:
    wrong = SCORES[:60].copy()
    wrong[0] += 1.0
    unsure = np.zeros(60)
    unsure[0] = 2.0
    believing, _ = fit(ROWS[:60], wrong, ENCODER.groups).predict(ROWS[:1])
    doubting, _ = fit(ROWS[:60], wrong, ENCODER.groups, extra_noise=unsure).predict(ROWS[:1])
    assert abs(doubting[0] - SCORES[0]) < abs(believing[0] - SCORES[0])


def test_stopped_candidates_are_expected_where_their_rung_says() -> None:
    complete = [Seen(str(index), {}, 1.0, (index / 10, index / 10 + 0.2), finished=True) for index in range(6)]
    finals = expected_finals([*complete, Seen("stopped", {}, 1.0, (0.25,), finished=True)], 2)
    expected, unsure = finals["stopped"]
    assert abs(expected - 0.45) < 1e-6
    assert unsure > 0
    assert finals["0"] == (0.2, 0.0)
