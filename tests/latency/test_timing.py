import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency.errors import ModelError, UnstableMeasurement
from latency.settings import Effort
from latency.timing import Slice, Timing, held_to_one_speed, quiet_probe

runs = st.lists(st.integers(1, 10**12), min_size=1, max_size=20).map(tuple)
timings = st.builds(
    Timing,
    st.lists(
        st.builds(Slice, runs, st.integers(1, 10**6), st.integers(0, 3), st.sets(st.integers(0, 19)).map(tuple)),
        min_size=1,
        max_size=30,
    ).map(tuple),
    st.floats(0.001, 0.5),
    st.none() | st.floats(0, 100),
)


@given(timings)
def test_json_round_trip_keeps_every_nanosecond(timing):
    assert Timing.from_json(json.loads(json.dumps(timing.as_json()))) == timing


@given(timings)
def test_figures_are_within_what_was_measured(timing):
    every = [ns / 1e6 for part in timing.slices for ns in part.ns]
    assert min(every) <= timing.low_ms <= max(every)
    assert min(every) <= timing.median_ms <= timing.p90_ms <= max(every)
    assert 0 <= timing.mad_ms <= max(every) - min(every)
    assert timing.runs == len(every)


@given(st.integers(1000, 10**9), st.integers(4, 40))
def test_equal_runs_are_stable(ns, count):
    timing = Timing(tuple(Slice((ns, ns), 20_000) for _ in range(count)))
    assert timing.low_ms == ns / 1e6
    assert timing.half_difference == 0
    assert timing.require_stable() is timing


def test_three_slices_are_too_few_to_know():
    timing = Timing((Slice((1000,), 20_000),) * 3)
    assert not timing.stable
    with pytest.raises(UnstableMeasurement, match="stop what else runs"):
        timing.require_stable()


def test_drift_between_early_and_late_slices_is_noticed():
    early, late = Slice((1000,), 20_000), Slice((1100,), 20_000)
    assert Timing((early,) * 8 + (late,) * 8).half_difference == pytest.approx(0.1)


def test_slices_on_a_slowed_core_are_left_out():
    good, slow = Slice((1000, 1010), 20_000), Slice((1500, 1510), 30_000)
    assert Timing((slow, slow, good, slow, slow, good, good, slow)).low_ms == 1000 / 1e6


def test_one_lucky_probe_does_not_decide_alone():
    lucky, usual = Slice((2000,), 10_000), Slice((1000,), 20_000)
    assert Timing((lucky, *[usual] * 9)).low_ms == 1000 / 1e6


def test_interrupted_runs_count_nowhere_but_in_the_raw_figures():
    slices = tuple(Slice((900, 1000, 5000), 20_000, 0, (0, 2)) for _ in range(8))
    assert Timing(slices).low_ms == 1000 / 1e6
    assert Timing(slices).p90_ms == 5000 / 1e6
    assert Timing(slices).stable


def test_a_network_that_never_ran_without_interruption_is_not_stable():
    timing = Timing(tuple(Slice((5000, 5001), 20_000, 0, (0, 1)) for _ in range(16)))
    assert timing.low_ms == 5000 / 1e6
    with pytest.raises(UnstableMeasurement, match="never ran without interruption"):
        timing.require_stable()


def test_slow_runs_do_not_move_the_estimate():
    slices = tuple(Slice((1000, 1000 + 50_000 * (number % 3), 1002), 20_000) for number in range(16))
    assert Timing(slices).low_ms == 1000 / 1e6


@pytest.mark.parametrize(
    "change",
    [
        {"ns": "AAAA"},
        {"ns": 3},
        {"runs": [1, 2]},
        {"runs": [0, 4]},
        {"probes_ns": []},
        {"processes": None},
        {"interrupted": 1},
    ],
)
def test_damaged_json_is_refused(change):
    plain = Timing((Slice((1000, 1001), 20_000), Slice((1002, 1003), 20_000))).as_json()
    with pytest.raises(ModelError, match="damaged"):
        Timing.from_json({**plain, **change})


def test_missing_keys_are_refused():
    with pytest.raises(ModelError, match="damaged"):
        Timing.from_json({})


@pytest.mark.parametrize("change", [{"processes": 0}, {"slices": 0}, {"tolerance": 0.0}, {"limit_s": -1.0}])
def test_effort_needs_positive_figures(change):
    with pytest.raises(ValueError, match="at least 1"):
        Effort(**change)


def test_full_speed_is_what_lasted_a_while():
    assert quiet_probe([31, 30, 32, 55, 56, 57, 58, 60]) == 30
    assert quiet_probe([20, *[31] * 20, *[50] * 30]) == 31  # one lucky probe
    assert quiet_probe([*[24] * 5, *[31] * 95]) == 31  # a short burst of a higher clock
    assert quiet_probe([50]) == 50


def test_networks_of_different_minutes_are_held_to_one_speed():
    slow, full = Slice((1300, 1301), 55_000), Slice((1000, 1001), 31_000)
    then, now = Timing((slow,) * 16, quiet_ns=55_000), Timing((full,) * 16, quiet_ns=31_000)
    assert then.stable
    assert now.stable
    assert [one.stable for one in held_to_one_speed([then, now])] == [False, True]
    assert held_to_one_speed([]) == []


def test_time_at_full_speed_is_told_apart():
    slow, full = Slice((2_000_000,), 55_000), Slice((1_000_000,), 31_000)
    timing = Timing((slow,) * 4 + (full,) * 4, quiet_ns=31_000)
    assert (timing.device_s, timing.quiet_s) == (12 / 1e3, 4 / 1e3)
    assert Timing((slow,) * 4).quiet_s == 8 / 1e3


def test_slices_from_a_slow_phase_do_not_count():
    """All of them agree with each other: only what was measured beside tells that the device was slower then."""
    slow, full = Slice((1300, 1301), 55_000), Slice((1000, 1001), 31_000)
    assert Timing((slow,) * 16).stable
    alone = Timing((slow,) * 16, quiet_ns=31_000)
    assert not alone.stable
    with pytest.raises(UnstableMeasurement, match="full speed"):
        alone.require_stable()
    mixed = Timing((slow,) * 12 + (full,) * 4, quiet_ns=31_000)
    assert (mixed.low_ms, mixed.stable) == (1000 / 1e6, True)
    assert Timing.from_json(mixed.as_json()) == mixed
