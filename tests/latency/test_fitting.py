import numpy as np
import pytest

from latency.features import kind, quantities
from latency.fitting import NETWORK, accuracy, cross_validate, fit, total
from latency.planning import kernels
from latency.samples import varied_architectures
from searchspace.architecture import lower
from tests.latency.architectures import wild_architecture

BLOCK = 8


@pytest.fixture(scope="module")
def rows() -> list[dict[str, float]]:
    source = varied_architectures(3)
    return [quantities(kernels(lower(next(source)), nchwc_block=BLOCK), nchwc_block=BLOCK) for _ in range(120)]


@pytest.fixture(scope="module")
def truth(rows) -> dict[str, float]:
    """Weights under which quantities of one kind take a similar share of the time."""
    source = np.random.default_rng(0)
    names = sorted({name for row in rows for name in row})
    mean = {name: np.mean([row.get(name, 0.0) for row in rows]) for name in names}
    return {NETWORK: 0.02, **{name: source.uniform(0.0, 0.1) / mean[name] for name in names if source.random() < 0.7}}


def test_a_sum_over_quantities_is_found_again(rows, truth):
    ms = [total(truth, row) for row in rows]
    found = fit(rows, ms)
    assert accuracy(np.array([total(found, row) for row in rows]), np.array(ms)).p95_error < 0.02


def test_weights_are_never_negative(rows):
    ms = np.random.default_rng(1).uniform(0.1, 10.0, len(rows))
    assert min(fit(rows, ms.tolist()).values()) >= 0


def test_slow_outliers_hardly_move_the_fit(rows, truth):
    ms = np.array([total(truth, row) for row in rows])
    disturbed = ms.copy()
    disturbed[::10] *= 1.5
    found = fit(rows, disturbed.tolist())
    assert accuracy(np.array([total(found, row) for row in rows]), ms).median_error < 0.02


def test_a_held_out_network_does_not_influence_its_own_prediction(rows, truth):
    """With one network's time changed, the predictions of that network's whole fold stay what they were."""
    ms = [total(truth, row) for row in rows]
    before = cross_validate(rows, ms).predicted
    ms[7] *= 3
    after = cross_validate(rows, ms).predicted
    assert after[7] == before[7]
    assert (after != before).any()


def test_accuracy_counts_relative_errors():
    found = accuracy(np.array([1.04, 2.2, 2.9, 5.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert (found.n, found.within_5, found.within_10) == (4, 0.5, 0.5)
    assert found.median_error == pytest.approx((0.04 + 0.1) / 2)
    assert found.spearman == pytest.approx(1.0)
    assert found.kendall == pytest.approx(1.0)


@pytest.mark.parametrize("block", [1, 8, 16])
def test_quantities_are_positive_and_add_up_over_kernels(block):
    for seed in range(60):
        found = kernels(lower(wild_architecture(seed)), nchwc_block=block)
        whole = quantities(found, nchwc_block=block)
        assert min(whole.values()) > 0
        summed: dict[str, float] = {}
        for kernel in found:
            for name, value in quantities([kernel], nchwc_block=block).items():
                summed[name] = summed.get(name, 0.0) + value
        assert summed == pytest.approx(whole)


@pytest.mark.parametrize("block", [1, 8, 16])
def test_every_kernel_costs_at_least_being_one(block):
    for seed in range(60):
        for kernel in kernels(lower(wild_architecture(seed)), nchwc_block=block):
            assert quantities([kernel], nchwc_block=block)[f"{kind(kernel)}:kernel"] == 1


def test_arithmetic_is_never_less_than_the_graph_s():
    """Padding to blocks only adds: the staircase that makes unaligned widths slow."""
    for seed in range(60):
        for kernel in kernels(lower(wild_architecture(seed)), nchwc_block=16):
            if kernel.op == "Conv" and not kernel.padding:  # a window outside the image costs nothing
                assert quantities([kernel], nchwc_block=16)[f"{kind(kernel)}:macs"] >= kernel.macs
