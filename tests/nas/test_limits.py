"""What a candidate is worth, and what it must stay within."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency.errors import UnmeasuredKernel
from nas.errors import StudyError
from nas.limits import Prediction, Reward, latency_limit, size_limits
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
