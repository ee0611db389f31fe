"""Ways to predict a network's latency, each as others do it, all from the same measurements.

Every method is a function of networks to learn from and networks to predict, and returns milliseconds of the latter.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.ensemble import GradientBoostingRegressor

from latency.features import kind, network_quantities
from latency.fitting import fit, total
from latency.kernel import Kernel

from .tasks import Sample, block_keys, block_name

Array = NDArray[np.float64]
Method = Callable[[Sequence[Sample], Sequence[Sample]], Array]


def macs_linear(known: Sequence[Sample], wanted: Sequence[Sample]) -> Array:
    """a + b × MACs."""
    return _linear([_macs(one) for one in known], _ms(known), [_macs(one) for one in wanted])


def roofline(known: Sequence[Sample], wanted: Sequence[Sample]) -> Array:
    """Each kernel takes the longer of computing and of moving its numbers; both rates and a constant are fitted."""
    truth, inner, outer = _ms(known), [_work(one) for one in known], [_work(one) for one in wanted]

    def predicted(work: list[Array], logs: Array) -> Array:
        macs_rate, move_rate, constant = np.exp(logs)
        return np.array([constant + np.maximum(part[0] * macs_rate, part[1] * move_rate).sum() for part in work])

    def error(logs: Array) -> float:
        return float(np.abs(np.log(predicted(inner, logs) / truth)).mean())

    start = np.log([1e-8, 1e-7, 0.02])  # ms per MAC, per number moved, per network
    return predicted(outer, minimize(error, start, method="Nelder-Mead", options={"maxiter": 2000}).x)


def ours(known: Sequence[Sample], wanted: Sequence[Sample], *, block: int) -> Array:
    """The product's own: a sum over fused kernels, non-negative, fitted to whole networks."""
    weights = fit([network_quantities(one.kernels, nchwc_block=block) for one in known], [one.ms for one in known])
    return np.array([total(weights, network_quantities(one.kernels, nchwc_block=block)) for one in wanted])


def block_table(wanted: Sequence[Sample], block_ms: Mapping[str, float], *, calibrated: bool) -> Array:
    """Sum of the blocks' times measured by themselves (ProxylessNAS, OFA, NetAdapt); calibrated: a + b × sum.

    a and b for each network come from all the others.
    """
    sums = np.array([sum(block_ms[name] for name in block_names(one)) for one in wanted])
    if not calibrated:
        return sums
    truth = _ms(wanted)
    found = []
    for index in range(len(wanted)):
        others = np.arange(len(wanted)) != index
        found.append(_linear(sums[others], truth[others], sums[[index]])[0])
    return np.array(found)


def kernel_regressors(
    known: Sequence[Sample], wanted: Sequence[Sample], profiles: Mapping[str, Sequence[float]]
) -> Array:
    """Boosted trees for each kind of kernel, learnt from the profiler's times, summed and calibrated (nn-Meter)."""
    inputs: dict[str, list[list[float]]] = defaultdict(list)
    times: dict[str, list[float]] = defaultdict(list)
    for one in known:
        for kernel, ms in zip(one.kernels, profiles.get(one.task.name, ()), strict=False):
            inputs[kind(kernel)].append(_described(kernel))
            times[kind(kernel)].append(np.log(max(ms, 1e-3)))
    trees = {
        name: GradientBoostingRegressor(random_state=0, n_estimators=200, max_depth=4).fit(inputs[name], times[name])
        for name in inputs
        if len(inputs[name]) > 4
    }

    def summed(samples: Sequence[Sample]) -> Array:
        sums = np.zeros(len(samples))
        by_kind: dict[str, list[tuple[int, list[float]]]] = defaultdict(list)
        for index, one in enumerate(samples):
            for kernel in one.kernels:
                by_kind[kind(kernel)].append((index, _described(kernel)))
        for name, rows in by_kind.items():
            if name in trees:
                np.add.at(sums, [index for index, _ in rows], np.exp(trees[name].predict([row for _, row in rows])))
        return sums

    return _linear(summed(known), _ms(known), summed(wanted))


def block_names(sample: Sample) -> list[str]:
    """The table's keys of a network."""
    assert sample.task.architecture is not None
    return [block_name(key) for key in block_keys(sample.task.architecture)]


def _linear(x: Sequence[float] | Array, y: Array, at: Sequence[float] | Array) -> Array:
    """a + b·x with the least relative squares."""
    columns = np.stack([np.ones(len(y)), np.asarray(x)], axis=1)
    a, b = np.linalg.lstsq(columns / y[:, None], np.ones(len(y)), rcond=None)[0]
    return np.asarray(a + b * np.asarray(at))


def _ms(samples: Sequence[Sample]) -> Array:
    return np.array([one.ms for one in samples])


def _macs(sample: Sample) -> float:
    return float(sum(kernel.macs for kernel in sample.kernels))


def _moved(kernel: Kernel) -> int:
    return kernel.source.values + kernel.shape.values + kernel.weights


def _work(sample: Sample) -> Array:
    return np.array([[kernel.macs for kernel in sample.kernels], [_moved(kernel) for kernel in sample.kernels]], float)


def _described(kernel: Kernel) -> list[float]:
    sizes = (*kernel.source, *kernel.shape, kernel.kernel, kernel.stride, kernel.macs, _moved(kernel))
    return [float(size) for size in sizes]
