"""One number for several costs: what is best by it is on the front; a single cost is left as it is."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.sampling.pricing import BEYOND, draw_pricing

AGAINST = ("ms", "params", "pixel1")
costs = st.tuples(*[st.floats(0.1, 10.0)] * 3)


@given(st.lists(costs, min_size=1, max_size=12), st.integers(0, 2**16))
def test_the_cheapest_by_any_weighting_is_dominated_by_none(known: list[tuple[float, ...]], seed: int) -> None:
    pricing = draw_pricing(AGAINST, known, limits={"ms": 5.0}, source=random.Random(seed))
    assert sum(pricing.weights) == pytest.approx(1.0)
    best = min(known, key=pricing.price)
    cheaper = [one for one in known if all(a < b * (1 - 1e-9) for a, b in zip(one, best, strict=True))]
    assert not cheaper
    assert all(pricing.price(one) <= pricing.limit for one in known if one[0] <= 5.0)


def test_every_network_of_a_front_is_the_cheapest_sometimes() -> None:
    known = [(1.0, 9.0), (3.0, 3.0), (9.0, 1.0)]
    source = random.Random(0)
    drawn = [draw_pricing(("ms", "params"), known, limits={"ms": 9.0}, source=source) for _ in range(100)]
    assert {min(known, key=pricing.price) for pricing in drawn} == set(known)


def test_a_single_cost_is_its_own_price_and_takes_nothing_from_chance() -> None:
    source = random.Random(0)
    before = source.getstate()
    by_ms = draw_pricing(("ms",), [(3.0,), (4.0,)], limits={"ms": 5.0}, source=source)
    by_size = draw_pricing(("params",), [(3.0,), (4.0,)], limits={"ms": 5.0}, source=source)
    assert source.getstate() == before
    assert (by_ms.price((3.3,)), by_ms.limit) == (3.3, 5.0)
    assert (by_size.price((3.3,)), by_size.limit) == (3.3, 4.0 * BEYOND)
    limited = draw_pricing(("params",), [(3.0,), (4.0,)], limits={"params": 9.0}, source=source)
    assert limited.limit == 9.0
