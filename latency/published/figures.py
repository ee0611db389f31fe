"""The published latencies of `figures.yaml`, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, get_args

import yaml

from latency.errors import ModelError
from latency.published.networks import published_network
from searchspace.architecture import Architecture

FORMAT = 1
Standing = Literal["verified", "derived", "recalled"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One published latency.

    Attributes:
        architecture: the network.
        ms: milliseconds.
        family: figures of one family are left out together when a model is judged.
        runtime: what it was measured with; figures of one runtime share a scale.
        source: where it was published.
        standing: how it is known: read in the source, computed from what the source gives, or recalled.
    """

    architecture: Architecture
    ms: float
    family: str
    runtime: str
    source: str
    standing: Standing


@lru_cache(maxsize=1)
def _plain() -> Mapping[str, Any]:
    text = (resources.files("latency.published") / "figures.yaml").read_text(encoding="utf-8")
    plain: Mapping[str, Any] = yaml.safe_load(text)
    if plain["format"] != FORMAT:
        raise ModelError(f"figures.yaml: format must be {FORMAT}, got {plain['format']!r}")
    return plain


def published_targets() -> tuple[str, ...]:
    """Targets that figures were published for."""
    return tuple(_plain()["newest"])


def newest_runtime(target: str) -> str:
    """The runtime whose scale is the target's."""
    return str(_plain()["newest"][target])


def figures(target: str) -> tuple[Figure, ...]:
    """Every published latency of a target.

    Raises:
        ModelError: there are none, or the file breaks a rule.
    """
    plain = _plain()
    found = []
    for table in plain["tables"]:
        if table["standing"] not in get_args(Standing):
            raise ModelError(f"figures.yaml: standing must be one of {', '.join(get_args(Standing))}, got {table!r}")
        for cells in table["rows"]:
            row = dict(zip(table["columns"], cells, strict=True))
            if row.get(target) is None:
                continue
            architecture = published_network(
                row["network"], width_multiplier=row["width"], resolution=row["resolution"]
            )
            found.append(
                Figure(
                    architecture=architecture,
                    ms=float(row[target]),
                    family=plain["families"][row["network"].partition(":")[0]],
                    runtime=table["runtime"],
                    source=f"{table['table']}: {table['source']}",
                    standing=table["standing"],
                )
            )
    if not found:
        raise ModelError(
            f"no latencies were published for {target!r}; there are some for {', '.join(published_targets())}"
        )
    return tuple(found)
