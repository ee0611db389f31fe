"""What a candidate is worth, and what it must stay within."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency.errors import UnmeasuredKernel
from latency.published.model import shipped_model
from nas.errors import StudyError
from nas.fidelity import SCORES
from nas.limits import Prediction, Reward, RewardKind, latency_limit, require_reward, size_limits
from searchspace.architecture import Architecture, lower
from searchspace.references import reference

NETWORK = reference("squeezenet_1_1")


def test_sizes_are_the_graph_s() -> None:
    graph = lower(NETWORK)
    tight = size_limits(params=graph.params, weight_bytes=graph.weights_bytes, peak_bytes=graph.peak_activation_bytes)
    assert [limit.excess(NETWORK) for limit in tight] == [0, 0, 0]
    tighter = size_limits(params=graph.params - 1)
    assert [limit.name for limit in tighter] == ["params"]
    assert tighter[0].excess(NETWORK) > 0


def test_a_network_that_another_target_s_model_cannot_predict_is_beyond_its_limit() -> None:
    class Model:
        def predict(self, architecture: Architecture) -> Prediction:
            raise UnmeasuredKernel("never measured")

    assert latency_limit("other", 1.0, Model()).excess(NETWORK) > 0


@given(st.floats(0.01, 1), st.floats(0.1, 2), st.floats(0.1, 2))
def test_rewards_rank_as_their_papers_say(accuracy: float, one_ms: float, other_ms: float) -> None:
    absolute, soft = Reward("absolute", 1.0), Reward("soft", 1.0)
    if abs(one_ms - 1) < abs(other_ms - 1):
        assert absolute.of(accuracy, one_ms) >= absolute.of(accuracy, other_ms)
    if one_ms < other_ms:
        assert soft.of(accuracy, one_ms) >= soft.of(accuracy, other_ms)
    assert Reward("accuracy", 1.0).of(accuracy, one_ms) == accuracy
    for reward in (absolute, soft):
        assert reward.of(accuracy, 1.0) == pytest.approx(accuracy)


def test_another_reward_is_refused() -> None:
    with pytest.raises(StudyError, match="the reward must be one of accuracy, absolute, soft"):
        Reward("hard", 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("reward", ["absolute", "soft"])
def test_rewards_of_what_is_no_accuracy_are_refused(reward: RewardKind) -> None:
    for score in SCORES:
        if score.endswith("accuracy"):
            require_reward(reward, score=score, pareto=False)
        else:
            with pytest.raises(StudyError, match=rf"--reward {reward} weighs accuracy .*, got --score {score}"):
                require_reward(reward, score=score, pareto=False)
        require_reward("accuracy", score=score, pareto=True)
    with pytest.raises(StudyError, match=f"--reward {reward} needs .* got --pareto"):
        require_reward(reward, score="accuracy", pareto=True)


def test_a_limit_says_what_sets_it_and_shows_amounts_with_their_unit() -> None:
    params, weights = size_limits(params=10, weight_bytes=20)
    assert (params.option, params.shown(1234.0), params.target) == ("--max-params", "1,234 parameters", None)
    assert (weights.option, weights.shown(1234.0)) == ("--max-weight-bytes", "1,234 bytes")
    model = shipped_model("pixel6")
    other = latency_limit("pixel6", 1.0, model)
    assert (other.option, other.shown(1.23456), other.target) == ("--also pixel6", "1.23 ms", "pixel6")
    assert other.predicted_ms(NETWORK) == model.predict(NETWORK).ms
    assert params.predicted_ms(NETWORK) is None
