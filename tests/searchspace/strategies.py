"""Hypothesis strategies that drive the product's own sampler, so properties are tested over the real search space."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from searchspace.architecture import Architecture
from searchspace.space import Space, load_space, parse_space

EVERYTHING = parse_space(
    """
    format: 1
    name: everything
    resolution: [32, 40]
    minimum_map: 2
    stem: {width: [8, 13], kernel: [3, 5], stride: 2, activation: [relu, hard_swish]}
    stages:
      - depth: [1, 2]
        width: [16, 24]
        stride: 2
        activation: [relu, relu6, hard_swish]
        blocks: &all
          conv: {kernel: [1, 3]}
          separable: {kernel: [3, 5]}
          uib: {expansion: [1, 3], dw_start: [0, 3, 5, 7], dw_mid: [0, 3, 5, 7], se: [0, 0.25]}
          fused: {expansion: [2], kernel: [3, 5], se: [0, 0.25]}
          fire: {squeeze: [0.125, 0.5], expand3x3: [0.25, 0.5], bypass: [none, identity, conv]}
          mqa: {heads: [2, 4], key_dim: [8], kv_stride: [1, 2]}
      - depth: [1, 3]
        width: [24, 44]
        stride: 2
        blocks: *all
    head: {kind: mobilenet, features: [48], hidden: [32, 64], dropout: 0.2}
    """
).adapt(channels=3, classes=7)
DEFAULT = load_space("default").adapt(channels=3, classes=10, resolution=32)


class _Drawn:
    """A `Suggest` whose answers Hypothesis draws (and shrinks)."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._draw(st.sampled_from(list(choices)))


@st.composite
def architectures(draw: Any, space: Space = EVERYTHING) -> Architecture:
    """Architectures of a space; by default of one that has every block, kernel and activation, and odd widths."""
    return space.sample(_Drawn(draw))
