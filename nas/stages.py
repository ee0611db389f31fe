"""Searching in two stages, as MobileNetV4 was searched: first how deep and wide, then which blocks.

In the coarse stage every block that can be one is an inverted bottleneck (expansion 4, one 3×3 depthwise layer), and depths and
widths are searched. In the fine stage the depths and widths are those of a good coarse network, and the kinds of blocks and their
kernels are searched. Which stage a candidate belongs to follows from what the study knows, also after a resumption.

Source: Qin et al., MobileNetV4, 2024, section 5.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nas.errors import StudyError
from nas.limits import Limit
from nas.sampling.decisions import Decisions
from nas.sampling.history import Seen
from nas.survey import Answers, Milliseconds
from searchspace.options import UIBOptions

STAGES = ("coarse", "fine")
EXPANSION, KERNEL = 4.0, 3
BASES = 3  # of the best coarse networks, whose depths and widths the fine stage takes in turn
POOL = 400  # coarse networks drawn for the first candidates


def parse_stages(text: str) -> bool:
    """Whether two stages are asked for, by ``coarse,fine``; ``one`` is a single stage.

    Raises:
        StudyError: anything else is.
    """
    parts = tuple(part.strip() for part in text.split(","))
    if parts not in (STAGES, ("one",)):
        raise StudyError(f"--stages must be 'coarse,fine' or 'one', got {text!r}")
    return parts == STAGES


@dataclass(frozen=True)
class TwoStages:
    """Settles decisions by stage.

    Attributes:
        decisions: of the space.
        trials: candidates of both stages together.
        share: of them in the coarse stage.
    """

    decisions: Decisions
    trials: int
    share: float = 0.5

    def pins(self, seen: Sequence[Seen], source: random.Random) -> Answers:
        """Decisions that are settled for the next candidate."""
        coarse = [one for one in seen if self.is_coarse(one.answers)]
        if len(seen) < self.share * self.trials or not any(one.scores for one in coarse):
            return self.plain
        best = sorted((one for one in coarse if one.scores), key=lambda one: (len(one.scores), one.scores[-1]))
        base = source.choice(best[-BASES:]).answers
        shape = {name: answer for name, answer in base.items() if _is_shape(name)}
        return shape | {name: answer for name, answer in self.plain.items() if name.endswith(".uib.expansion")}

    def first(
        self, milliseconds: Milliseconds, *, limit_ms: float, count: int, seed: int, limits: Sequence[Limit] = ()
    ) -> list[Answers]:
        """Coarse networks within the limits, evenly spread over their ranks in latency: what the search begins with."""
        source = random.Random(seed)
        coarse = Decisions(self.decisions.space, self.decisions.offers, self.plain)
        drawn = [
            one
            for one in (coarse.any(source) for _ in range(POOL))
            if all(limit.excess(one.architecture) <= 0 for limit in limits)
        ]
        timed = sorted(((milliseconds(one.architecture), index) for index, one in enumerate(drawn)))
        fitting = [drawn[index].answers for ms, index in timed if ms <= limit_ms]
        step = max(len(fitting) - 1, 1) / max(count - 1, 1)
        return [
            fitting[position]
            for position in sorted({round(step * at) for at in range(count)})
            if position < len(fitting)
        ]

    def is_coarse(self, answers: Answers) -> bool:
        """Whether these are the answers of a coarse network."""
        return all(answers[name] == answer for name, answer in self.plain.items() if name in answers)

    @cached_property
    def plain(self) -> Answers:
        """The answers that make a block a plain inverted bottleneck."""
        pins: dict[str, Any] = {}
        for stage in self.decisions.space.stages:
            options = dict(stage.kinds).get("uib")
            if not isinstance(options, UIBOptions):
                continue
            for index in range(max(stage.depth)):
                block = f"{stage.name}.block{index + 1}."
                pins[f"{block}kind"] = "uib"
                pins[f"{block}uib.expansion"] = _nearest(options.expansion, EXPANSION)
                pins[f"{block}uib.dw_start"] = _nearest(options.dw_start, 0)
                pins[f"{block}uib.dw_mid"] = _nearest(options.dw_mid, KERNEL)
                pins[f"{block}uib.dw_mid_strided"] = _nearest([kernel for kernel in options.dw_mid if kernel], KERNEL)
                pins[f"{block}uib.dw_start_strided"] = _nearest(
                    [kernel for kernel in options.dw_start if kernel], KERNEL
                )
                pins[f"{block}uib.se"] = _nearest(options.se, 0)
        return pins


def _is_shape(name: str) -> bool:
    """Whether a decision is about depth, width, resolution or the head."""
    return ".block" not in name


def _nearest(choices: Sequence[float], wanted: float) -> int:
    """Position of the choice nearest to what is wanted; 0 where there is none."""
    return min(range(len(choices)), key=lambda position: abs(choices[position] - wanted), default=0)
