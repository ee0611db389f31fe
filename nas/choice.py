"""Which proposal a step goes on with, and which ones are not worth fine-tuning to the end.

``accuracy``  the most accurate, as in NetAdapt's algorithm
``ratio``     the most accuracy gained (the least lost) per millisecond saved, as in MobileNetV3's variant
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from nas.tuning import Score

Rule = Literal["accuracy", "ratio"]
SURVIVING = 1 / 3  # of the proposals are fine-tuned to the end
SURVIVORS_AT_LEAST = 4

Worth = tuple[float, float]
"""Compared from left to right; the second figure, the loss with its sign turned, decides between equals."""


def worth(rule: Rule, score: Score | None, *, saved_ms: float, accuracy_before: float) -> Worth:
    """What a proposal is worth under the rule; less than any other where its training failed."""
    if score is None:
        return (-math.inf, -math.inf)
    if rule == "accuracy":
        return (score.accuracy, -score.loss)
    return ((score.accuracy - accuracy_before) / saved_ms, -score.loss)


def best(indices: Sequence[int], value: Callable[[int], Worth]) -> int:
    """The one of most worth; of equals the first."""
    return max(indices, key=lambda index: (*value(index), -index))


def survivors(indices: Sequence[int], value: Callable[[int], Worth]) -> list[int]:
    """Those worth fine-tuning to the end, in their order."""
    ranked = sorted(indices, key=value, reverse=True)
    count = max(SURVIVORS_AT_LEAST, math.ceil(SURVIVING * len(ranked)))
    return sorted(index for index in ranked[:count] if value(index)[0] > -math.inf)
