"""What a front weighs accuracy against: milliseconds, parameters or bytes, all of them known before a network is trained.

A cost has the name that it has on the command line. Where there are several, one network is better than another if it is at least
as accurate and no dearer in any of them.
"""

from collections.abc import Mapping, Sequence

from nas.errors import StudyError
from nas.limits import SIZES, Limit
from searchspace.architecture import Architecture

MS = "ms"
SIZE_OF = {name.replace("_", "-"): size for name, size in SIZES.items()}
TITLES = {
    MS: "ms",
    "params": "parameters",
    "weight-bytes": "bytes of weights",
    "peak-bytes": "peak bytes of activations",
}
UNKNOWN_MS = 1e9  # of a network that the latency model cannot predict: beyond every limit, so that it is never trained


def parse_against(wanted: Sequence[str], *, pareto: bool, targets: Sequence[str]) -> tuple[str, ...]:
    """The costs of those names, each once; milliseconds on the target where none is named.

    Args:
        wanted: names.
        pareto: whether the whole front counts.
        targets: names of the other targets that a network has to meet.

    Raises:
        StudyError: there is no such cost, or no front.
    """
    if not wanted:
        return (MS,)
    if not pareto:
        raise StudyError(
            f"--against {wanted[0]} needs a search for the whole front, got none: give --pareto, or leave --against out"
        )
    for name in wanted:
        if name not in (MS, *SIZE_OF, *targets):
            also = f"a target of --also ({', '.join(targets)})" if targets else "a target given by --also NAME=MS"
            raise StudyError(f"--against must be one of {', '.join((MS, *SIZE_OF))}, or {also}, got {name!r}")
    return tuple(dict.fromkeys(wanted))


def costs_of(
    architecture: Architecture, ms: float, *, against: Sequence[str], limits: Sequence[Limit]
) -> Mapping[str, float]:
    """What a network costs, by name.

    Args:
        architecture: the network.
        ms: milliseconds that it takes on the target.
        against: names of the costs.
        limits: those of the other targets among them.
    """
    return {name: ms if name == MS else _amount(name, architecture, limits) for name in against}


def _amount(name: str, architecture: Architecture, limits: Sequence[Limit]) -> float:
    if name in SIZE_OF:
        return SIZE_OF[name](architecture)
    [limit] = [limit for limit in limits if limit.target == name]
    ms = limit.predicted_ms(architecture)
    return UNKNOWN_MS if ms is None else ms


def most_of(*, budget_ms: float, limits: Sequence[Limit]) -> Mapping[str, float]:
    """What a network may cost at most, by name of the cost, where there is a limit."""
    sizes = {limit.name.replace("_", "-"): limit.most for limit in limits if limit.name in SIZES}
    return {MS: budget_ms, **sizes, **{limit.target: limit.most for limit in limits if limit.target is not None}}


def is_no_dearer(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether the first costs no more than the second in any of the second's costs."""
    return all(one[name] <= amount for name, amount in other.items())


def title_of(name: str) -> str:
    """A cost as an axis or a column is called."""
    return TITLES.get(name, f"predicted ms on {name}")


def shown(name: str, amount: float) -> str:
    """An amount of it without its unit, for people."""
    return f"{amount:,.0f}" if name in SIZE_OF else f"{amount:.3g}"
