"""The one value that flows through everything: what a network is, without its weights.

An `Architecture` is frozen, hashable and JSON-able, with absolute channel counts: a published network, a sampled candidate, a
trimmed one and a file edited by hand are the same kind of value. `lower` turns it into a `Graph`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from searchspace.blocks import BLOCKS, HEADS, Block, ClassicHead, Head
from searchspace.builder import Builder
from searchspace.errors import ArchitectureError
from searchspace.files import parse_plain
from searchspace.graph import Graph, Norm, Op, Shape

FORMAT = 1
Part = TypeVar("Part")


@dataclass(frozen=True)
class Architecture:
    """A network: square input of `resolution` pixels and `channels`, blocks, head, `classes` outputs.

    `norm` is the batch normalisation after every convolution (None: convolutions have biases instead, as in SqueezeNet).
    `name` is for people; it is neither compared nor part of the fingerprint.

    Raises:
        ArchitectureError: a block does not fit what comes before it; the message names the block's position and kind.
    """

    blocks: tuple[Block, ...]
    head: Head = field(default_factory=ClassicHead)
    resolution: int = 224
    channels: int = 3
    classes: int = 1000
    norm: Norm | None = field(default_factory=Norm)
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for key in ("resolution", "channels", "classes"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ArchitectureError(f"{key} must be a whole number from 1, got {value!r}")
        if not self.blocks:
            raise ArchitectureError("an architecture needs at least one block, got none")
        _ = self.shapes

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape before the first block, and after each block."""
        shape = self.input_shape
        shapes = [shape]
        for index, block in enumerate(self.blocks):
            try:
                shape = block.output(shape)
            except ArchitectureError as error:
                raise ArchitectureError(f"block {index} ({type(block).__name__}): {error}") from None
            shapes.append(shape)
        return tuple(shapes)

    @property
    def input_shape(self) -> Shape:
        """Shape of one image."""
        return Shape(self.channels, self.resolution, self.resolution)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the canonical JSON: names files, finds duplicates, keys caches."""
        data = self.to_dict()
        data.pop("name", None)
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain data. Fields at their defaults are left out of blocks and head, so new fields keep old fingerprints."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "resolution": self.resolution,
            "channels": self.channels,
            "classes": self.classes,
            "norm": dataclasses.asdict(self.norm) if self.norm else None,
            "blocks": [_part_to_dict("block", block) for block in self.blocks],
            "head": _part_to_dict("head", self.head),
        }
        return {"name": self.name, **data} if self.name else data

    def to_json(self) -> str:
        """Readable JSON, one block a line."""
        data = self.to_dict()
        blocks = ",\n".join(f"    {json.dumps(block)}" for block in data.pop("blocks"))
        rest = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items())
        return f'{{\n{rest},\n  "blocks": [\n{blocks}\n  ]\n}}\n'

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Architecture":
        """Architecture from plain data.

        Raises:
            ArchitectureError: a key is unknown or missing, a value breaks a rule; the message names where.
        """
        known = {"format", "name", "resolution", "channels", "classes", "norm", "blocks", "head"}
        _refuse_unknown("architecture", data, known)
        for key in ("format", "blocks", "head"):
            if key not in data:
                raise ArchitectureError(f"architecture: key {key!r} is missing")
        if data["format"] != FORMAT:
            raise ArchitectureError(f"architecture: format must be {FORMAT}, got {data['format']!r}")
        if not isinstance(data["blocks"], list):
            raise ArchitectureError(f"architecture: blocks must be a list, got {type(data['blocks']).__name__}")
        blocks = tuple(
            _part_from_dict("block", block, BLOCKS, f"block {index}") for index, block in enumerate(data["blocks"])
        )
        head = _part_from_dict("head", data["head"], HEADS, "head")
        norm = data.get("norm", {})
        rest = {key: data[key] for key in ("resolution", "channels", "classes", "name") if key in data}
        return Architecture(blocks, head, norm=None if norm is None else _build(Norm, "norm", norm), **rest)

    @staticmethod
    def from_text(text: str) -> "Architecture":
        """Architecture from JSON or YAML text.

        Raises:
            NasError: the text is neither.
            ArchitectureError: it does not describe an architecture.
        """
        data = parse_plain(text)
        if not isinstance(data, dict):
            raise ArchitectureError(f"an architecture file must hold one mapping, got {type(data).__name__}")
        return Architecture.from_dict(data)

    def __str__(self) -> str:
        """One aligned line per block: shape in, what it is, shape out."""
        rows = [("", f"{self.name or 'architecture'} {self.fingerprint}", _size(self.input_shape))]
        for index, (block, shape) in enumerate(zip(self.blocks, self.shapes[1:], strict=True)):
            rows.append((str(index), _describe(block), _size(shape)))
        rows.append(("", f"head {_describe(self.head)}", f"{self.classes}"))
        wide = max(len(text) for _, text, _ in rows)
        return "\n".join(f"{index:>3}  {text:<{wide}}  {size:>13}" for index, text, size in rows)


def lower(architecture: Architecture) -> Graph:
    """The network's ops, from the image to the logits. Names are ``blocks.3.expand``, ``head.classifier``."""
    build = Builder(architecture.input_shape, norm=architecture.norm)
    position = 0
    for index, block in enumerate(architecture.blocks):
        build.prefix = f"blocks.{index}."
        position = block.lower(build, position)
    build.prefix = "head."
    architecture.head.lower(build, position, architecture.classes)
    return Graph(tuple(build.ops))


@lru_cache(maxsize=1 << 16)
def lower_block(block: Block, shape: Shape, norm: Norm | None) -> tuple[Op, ...]:
    """One block by itself, its input at position 0; cached, since searches meet the same blocks again and again."""
    build = Builder(shape, norm=norm)
    block.lower(build, 0)
    return tuple(build.ops)


@lru_cache(maxsize=1 << 12)
def lower_head(head: Head, shape: Shape, *, classes: int, norm: Norm | None) -> tuple[Op, ...]:
    """The head by itself, its input at position 0; cached."""
    build = Builder(shape, norm=norm)
    head.lower(build, 0, classes)
    return tuple(build.ops)


def _part_to_dict(role: str, part: Block | Head) -> dict[str, Any]:
    values = {
        item.name: getattr(part, item.name)
        for item in dataclasses.fields(part)
        if item.default is dataclasses.MISSING or getattr(part, item.name) != item.default
    }
    return {role: part.kind, **values}


def _part_from_dict(role: str, data: object, kinds: Mapping[str, type[Part]], where: str) -> Part:
    if not isinstance(data, dict):
        raise ArchitectureError(f"{where}: must be a mapping, got {type(data).__name__}")
    values = dict(data)
    kind = values.pop(role, None)
    if kind not in kinds:
        raise ArchitectureError(f"{where}: {role!r} must be one of {', '.join(kinds)}, got {kind!r}")
    return _build(kinds[kind], f"{where} ({kinds[kind].__name__})", values)


def _build(cls: type[Part], where: str, values: object) -> Part:
    """An instance of the dataclass `cls` from outside data, with errors that name `where`."""
    if not isinstance(values, dict):
        raise ArchitectureError(f"{where}: must be a mapping, got {type(values).__name__}")
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    _refuse_unknown(where, values, set(fields))
    for name, item in fields.items():
        if item.default is dataclasses.MISSING and name not in values:
            raise ArchitectureError(f"{where}: key {name!r} is missing")
        if item.type is bool and not isinstance(values.get(name, item.default), bool):
            raise ArchitectureError(f"{where}: {name} must be true or false, got {values[name]!r}")
    try:
        return cls(**values)
    except ArchitectureError as error:
        raise ArchitectureError(f"{where}: {error}") from None
    except TypeError:
        raise ArchitectureError(f"{where}: a value has the wrong type in {values}") from None


def _refuse_unknown(where: str, data: Mapping[str, Any], known: set[str]) -> None:
    for key in data:
        if key not in known:
            raise ArchitectureError(f"{where}: unknown key {key!r}; known are {', '.join(sorted(known))}")


def _describe(part: Block | Head) -> str:
    values = _part_to_dict("kind", part)
    kind = values.pop("kind")
    return " ".join([f"{kind:<9}", *(f"{key}={value}" for key, value in values.items())]).rstrip()


def _size(shape: Shape) -> str:
    return f"{shape.channels}×{shape.height}×{shape.width}"
