"""One number for what a network costs, so that a front of several costs is looked for as one of a single cost.

For every candidate the costs are weighed anew, at random: what nothing beats in accuracy and this number is on the front,
whatever the weights; and other weights lead to other parts of it. The number is the augmented Tchebycheff function of the costs,
each as a share of the most that it is looked for at.

Source: Knowles, ParEGO, IEEE Transactions on Evolutionary Computation 10(1), 2006. There all objectives are weighed; here the
costs alone are, which are known exactly, and the expected gain is that of the front of accuracy against their number.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SUM = 0.05
"""ParEGO's ρ: how much the weighted sum counts, so that of two networks with the same largest share the cheaper one is better."""
BEYOND = 1.1  # times the most that known networks cost, where no limit says how far a front goes


@dataclass(frozen=True)
class Pricing:
    """How costs become one number.

    Attributes:
        most: of each cost, up to which the front is looked for.
        weights: of each cost, adding up to 1.
    """

    most: tuple[float, ...]
    weights: tuple[float, ...]

    def price(self, costs: Sequence[float]) -> float:
        """What a network of these costs costs: a single cost is itself, several are one number without a unit."""
        if len(self.most) == 1:
            return costs[0]
        shares = [weight * cost / most for weight, cost, most in zip(self.weights, costs, self.most, strict=True)]
        return max(shares) + SUM * sum(shares)

    @property
    def limit(self) -> float:
        """The price up to which the front is looked for."""
        return self.price(self.most)


def draw_pricing(
    against: Sequence[str], known: Sequence[Sequence[float]], *, limits: Mapping[str, float], source: random.Random
) -> Pricing:
    """Costs weighed at random, all weightings equally likely; a single cost takes nothing from `source`.

    Args:
        against: names of the costs.
        known: costs of each network that is known.
        limits: what a network may cost at most, by name, where there is a limit.
        source: of chance.
    """
    columns = zip(*known, strict=True)
    most = tuple(limits.get(name) or BEYOND * max(column) for name, column in zip(against, columns, strict=True))
    if len(most) == 1:
        return Pricing(most, (1.0,))
    drawn = [source.expovariate(1.0) for _ in most]
    return Pricing(most, tuple(one / sum(drawn) for one in drawn))
