"""What a front may be against: known by name, counted as the graph counts it."""

import pytest

from latency.published.model import shipped_model
from nas.costs import costs_of, is_no_dearer, most_of, parse_against, shown, title_of
from nas.errors import StudyError
from nas.limits import latency_limit, size_limits
from searchspace.architecture import lower
from tests.nas.learning import small


def test_costs_are_those_of_the_graph_and_of_each_targets_model_in_the_order_asked_for() -> None:
    network, model = small(), shipped_model("pixel6")
    against = ("pixel6", "params", "ms", "weight-bytes", "peak-bytes")
    costs = costs_of(network, 1.5, against=against, limits=[latency_limit("pixel6", 3.0, model)])
    graph = lower(network)
    assert tuple(costs) == against
    assert tuple(costs.values()) == (
        model.predict(network).ms,
        graph.params,
        1.5,
        graph.weights_bytes,
        graph.peak_activation_bytes,
    )


def test_names_are_checked_before_anything_else() -> None:
    assert parse_against([], pareto=False, targets=[]) == ("ms",)
    assert parse_against(["params", "ms", "params"], pareto=True, targets=[]) == ("params", "ms")
    assert parse_against(["pixel1"], pareto=True, targets=["pixel1"]) == ("pixel1",)
    for wanted, pareto, targets, reason in (
        (["ms"], False, [], "--against ms needs a search for the whole front, got none: give --pareto"),
        (["parameters"], True, [], "one of ms, params, .*, or a target given by --also NAME=MS, got 'parameters'"),
        (["pixel1"], True, ["pixel3"], r"or a target of --also \(pixel3\), got 'pixel1'"),
    ):
        with pytest.raises(StudyError, match=reason) as told:
            parse_against(wanted, pareto=pareto, targets=targets)
        assert "\n" not in str(told.value)


def test_limits_say_how_dear_a_network_may_be() -> None:
    limits = (*size_limits(params=9, peak_bytes=7), latency_limit("pixel6", 3.0, shipped_model("pixel6")))
    assert most_of(budget_ms=2.0, limits=limits) == {"ms": 2.0, "params": 9, "peak-bytes": 7, "pixel6": 3.0}


def test_no_dearer_is_so_in_every_cost() -> None:
    assert is_no_dearer({"ms": 1.0, "params": 5.0}, {"ms": 1.0, "params": 6.0})
    assert not is_no_dearer({"ms": 1.0, "params": 7.0}, {"ms": 2.0, "params": 6.0})


def test_amounts_and_names_are_for_people() -> None:
    assert (title_of("params"), shown("params", 12345.0)) == ("parameters", "12,345")
    assert (title_of("pixel1"), shown("pixel1", 1.23456)) == ("predicted ms on pixel1", "1.23")
