"""Search spaces: YAML files that say which architectures may be drawn, and drawing them.

A file has a stem, stages, a head and the input resolution; every value may be one choice or a list of them::

    format: 1
    name: small
    resolution: auto            # the data's own; or a number of pixels, or a list of them
    minimum_map: 4              # early strides are dropped until the last feature map has this many pixels a side
    stem: {width: [16, 24], kernel: 3, stride: 2}
    stages:
      - depth: [1, 2, 3]        # blocks in the stage
        width: [32, 48]         # channels they put out
        stride: 2               # of the first block
        activation: relu
        blocks:                 # kinds, mixed freely within the stage
          uib: {expansion: [2, 4], dw_start: [0, 3, 5], dw_mid: [0, 3, 5], se: [0, 0.25]}
          fire: {squeeze: [0.125, 0.25], expand3x3: 0.5, bypass: [none, identity, conv]}
    head: {kind: classic, features: [256, 512], dropout: 0.1}
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from searchspace import counting
from searchspace.architecture import Architecture
from searchspace.blocks import Block, ClassicHead, Head, MobileNetHead, NinHead
from searchspace.errors import NasError, SpaceError
from searchspace.files import parse_plain
from searchspace.graph import ACTIVATIONS, ActivationKind, Norm
from searchspace.options import OPTIONS, ConvOptions, FireOptions, Options, Place
from searchspace.sampling import Ask, Suggest

FORMAT = 1
DIVISOR = 8  # computed widths are multiples of it
HEAD_KINDS = ("classic", "mobilenet", "nin")
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """A run of blocks of one width; the first one changes the width and carries the stride."""

    name: str
    depth: tuple[int, ...]
    width: tuple[int, ...]
    stride: int
    activation: tuple[ActivationKind, ...]
    kinds: tuple[tuple[str, Options], ...]

    def sample_block(self, ask: Ask, place: Place, *, first: bool) -> tuple[Block, ...]:
        """One block (with the pool before it, if it needs one)."""
        kinds = self._opening if first else self._following
        kind = ask.choice("kind", tuple(kinds))
        return kinds[kind].sample(ask.at(kind), place)

    @cached_property
    def _opening(self) -> dict[str, Options]:
        return {kind: options for kind, options in self.kinds if options.opens_stage}

    @cached_property
    def _following(self) -> dict[str, Options]:
        return dict(self.kinds)


@dataclass(frozen=True)
class HeadOptions:
    """What may follow the stages: a 1×1 convolution to `features` channels (0: none), then the head of the given kind."""

    kind: str = "classic"
    features: tuple[int, ...] = (0,)
    hidden: tuple[int, ...] = (0,)
    activation: ActivationKind = "relu"
    dropout: float = 0.0

    def sample(self, ask: Ask) -> Head:
        """The head itself; the 1×1 convolution is the space's last stage."""
        match self.kind:
            case "mobilenet":
                hidden = ask.ordered("hidden", self.hidden)
                return MobileNetHead(hidden=hidden, activation=self.activation, dropout=self.dropout)
            case "nin":
                return NinHead(dropout=self.dropout)
        return ClassicHead(dropout=self.dropout)


@dataclass(frozen=True)
class Space:
    """Which architectures may be drawn. Empty `resolution` means: the data's own, given by `adapt`.

    Raises:
        SpaceError: a rule is broken; the message names the key.
    """

    stages: tuple[Stage, ...]  # the stem first, the head's 1×1 convolution (if any) last
    head: HeadOptions
    resolution: tuple[int, ...] = ()
    minimum_map: int = 0
    channels: int = 3
    classes: int = 1000
    name: str = ""

    def __post_init__(self) -> None:
        for resolution in self.resolution:
            total = 1
            for stride in self.strides(resolution):
                total *= stride
            if total > resolution:
                raise SpaceError(
                    f"resolution: the strides multiply to {total}, which exceeds {resolution} px: "
                    "set some stride to 1, or minimum_map to drop strides for small images"
                )

    def adapt(self, *, channels: int, classes: int, resolution: int | None = None) -> "Space":
        """The same space for data of that many channels and classes.

        `resolution` in pixels is used where the space says ``auto``.

        Raises:
            SpaceError: the space leaves the resolution to the data and none is given, or its strides exceed it.
        """
        if not self.resolution and resolution is None:
            raise SpaceError("resolution: the space says auto, so the data must give one")
        chosen = self.resolution or (resolution or 0,)
        return dataclasses.replace(self, resolution=chosen, channels=channels, classes=classes)

    def strides(self, resolution: int) -> tuple[int, ...]:
        """Stride of each stage at that resolution; the earliest are dropped first where the map would get too small."""
        strides = [stage.stride for stage in self.stages]
        total = 1
        for stride in strides:
            total *= stride
        for index, stride in enumerate(strides):
            if self.minimum_map and stride > 1 and resolution / total < self.minimum_map:
                strides[index] = 1
                total //= stride
        return tuple(strides)

    def sample(self, suggest: Suggest) -> Architecture:
        """An architecture of this space, its decisions answered by `suggest`.

        Raises:
            SpaceError: the resolution is not known yet (see `adapt`).
        """
        ask = Ask(suggest)
        resolution = ask.ordered("resolution", self._resolutions())
        cin = self.channels
        blocks: list[Block] = []
        for stage, stride in zip(self.stages, self.strides(resolution), strict=True):
            here = ask.at(stage.name)
            depth = here.ordered("depth", stage.depth)
            width = here.ordered("width", stage.width)
            activation = here.choice("activation", stage.activation)
            for index in range(depth):
                place = Place(cin, width, 1 if index else stride, activation, DIVISOR)
                blocks += stage.sample_block(here.at(f"block{index + 1}"), place, first=index == 0)
                cin = width
        return Architecture(
            tuple(blocks), self.head.sample(ask.at("head")), resolution, self.channels, self.classes, Norm()
        )

    def size(self) -> int:
        """Number of distinct architectures, exactly."""
        return counting.size(self)

    def contains(self, architecture: Architecture) -> bool:
        """Whether the architecture can be drawn from this space."""
        return counting.contains(self, architecture)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with anything that changes what can be drawn."""
        data = dataclasses.asdict(dataclasses.replace(self, name=""))
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `Space.from_dict` makes the same space of it."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Space":
        """Space from plain data.

        Raises:
            SpaceError: the data is not what `to_dict` gives.
        """
        try:
            stages = tuple(
                Stage(
                    **{
                        **_tuples(stage),
                        "kinds": tuple((kind, OPTIONS[kind](**_tuples(o))) for kind, o in stage["kinds"]),
                    }
                )
                for stage in data["stages"]
            )
            return Space(**{**_tuples(data), "stages": stages, "head": HeadOptions(**_tuples(data["head"]))})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpaceError(f"a space must be plain data as written by this version, got {error!r}") from None

    def _resolutions(self) -> tuple[int, ...]:
        if not self.resolution:
            raise SpaceError("resolution: the space says auto; adapt it to the data first")
        return self.resolution


def load_space(name_or_path: str) -> Space:
    """A shipped space by name (``default``), or one from a YAML or JSON file.

    Raises:
        SpaceError: no such space, or its file breaks a rule; the message names file and key.
    """
    shipped = resources.files("searchspace") / "spaces"
    names = sorted(item.name.removesuffix(".yaml") for item in shipped.iterdir() if item.name.endswith(".yaml"))
    if name_or_path in names:
        return parse_space((shipped / f"{name_or_path}.yaml").read_text())
    path = Path(name_or_path)
    if not path.is_file():
        raise SpaceError(f"space {name_or_path!r} must be a file or one of {', '.join(names)}")
    try:
        return parse_space(path.read_text())
    except (NasError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path}: {error}") from None


def parse_space(text: str) -> Space:
    """A space from YAML or JSON text.

    Raises:
        SpaceError: a rule is broken; the message names the key.
    """
    data = _mapping("space", parse_plain(text))
    _known_keys(
        "space", data, {"format", "name", "resolution", "minimum_map", "stem", "stages", "head"}, {"format", "stages"}
    )
    if data["format"] != FORMAT:
        raise SpaceError(f"format: must be {FORMAT}, got {data['format']!r}")
    if not isinstance(data["stages"], list) or not data["stages"]:
        raise SpaceError("stages: must be a list of at least one stage")
    head, features = _head(_mapping("head", data.get("head", {})))
    stages = [_stem(_mapping("stem", data["stem"]))] if "stem" in data else []
    for index, stage in enumerate(data["stages"]):
        stages.append(_stage(f"stages[{index}]", f"stage{index + 1}", _mapping(f"stages[{index}]", stage)))
    resolution = data.get("resolution", "auto")
    return Space(
        stages=tuple(stages) + features,
        head=head,
        resolution=() if resolution == "auto" else _counts("resolution", resolution),
        minimum_map=_counts("minimum_map", data.get("minimum_map", 0), low=0)[0],
        name=str(data.get("name", "")),
    )


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def _stem(data: Mapping[str, Any]) -> Stage:
    _known_keys("stem", data, {"width", "kernel", "stride", "activation"}, {"width"})
    kernel = _counts("stem.kernel", data.get("kernel", 3))
    return Stage(
        name="stem",
        depth=(1,),
        width=_counts("stem.width", data["width"]),
        stride=_stride("stem.stride", data.get("stride", 2)),
        activation=_activations("stem.activation", data.get("activation", "relu")),
        kinds=(("conv", _options("stem", ConvOptions, {"kernel": kernel})),),
    )


def _stage(where: str, name: str, data: Mapping[str, Any]) -> Stage:
    _known_keys(where, data, {"depth", "width", "stride", "activation", "blocks"}, {"depth", "width", "blocks"})
    blocks = _mapping(f"{where}.blocks", data["blocks"])
    _known_keys(f"{where}.blocks", blocks, set(OPTIONS), set())
    kinds = tuple(
        (kind, _options(f"{where}.blocks.{kind}", OPTIONS[kind], values or {})) for kind, values in blocks.items()
    )
    width = _counts(f"{where}.width", data["width"])
    if not any(options.opens_stage for _, options in kinds):
        raise SpaceError(f"{where}.blocks: needs a kind that can change the width (not only mqa), got {list(blocks)}")
    if any(isinstance(options, FireOptions) for _, options in kinds) and min(width) < 2 * DIVISOR:
        raise SpaceError(f"{where}.width: fire blocks need at least {2 * DIVISOR} channels, got {min(width)}")
    return Stage(
        name=name,
        depth=_counts(f"{where}.depth", data["depth"]),
        width=width,
        stride=_stride(f"{where}.stride", data.get("stride", 1)),
        activation=_activations(f"{where}.activation", data.get("activation", "relu")),
        kinds=kinds,
    )


def _head(data: Mapping[str, Any]) -> tuple[HeadOptions, tuple[Stage, ...]]:
    """The head's options, and the 1×1 convolution before it as a last stage where there is one."""
    _known_keys("head", data, {"kind", "features", "hidden", "activation", "dropout"}, set())
    kind = data.get("kind", "classic")
    if kind not in HEAD_KINDS:
        raise SpaceError(f"head.kind: must be one of {', '.join(HEAD_KINDS)}, got {kind!r}")
    if (kind == "mobilenet") != ("hidden" in data):
        raise SpaceError(f"head.hidden: must be given for kind mobilenet and for no other, got kind {kind}")
    dropout = data.get("dropout", 0.0)
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise SpaceError(f"head.dropout: must be a number in [0, 1), got {dropout!r}")
    activations = _activations("head.activation", data.get("activation", "relu"))
    if len(activations) > 1:
        raise SpaceError(f"head.activation: must be one, got {list(activations)}")
    head = HeadOptions(
        kind=kind,
        hidden=_counts("head.hidden", data.get("hidden", 1)),
        activation=activations[0],
        dropout=float(dropout),
    )
    if "features" not in data:
        return head, ()
    options = ConvOptions(kernel=(1,))
    widths = _counts("head.features", data["features"])
    return head, (Stage("head.features", (1,), widths, 1, activations, (("conv", options),)),)


def _options(where: str, cls: type[Options], values: object) -> Options:
    """A block kind's options from a file: every field one choice or a list of choices."""
    data = _mapping(where, values)
    _known_keys(where, data, {item.name for item in dataclasses.fields(cls)}, set())
    choices = {key: tuple(value) if isinstance(value, (list, tuple)) else (value,) for key, value in data.items()}
    try:
        return cls(**choices)
    except SpaceError as error:
        raise SpaceError(f"{where}.{error}") from None


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SpaceError(f"{where}: must be a mapping of keys to values, got {value!r}")
    return value


def _known_keys(where: str, data: Mapping[str, Any], known: set[str], required: set[str]) -> None:
    for key in data:
        if key not in known:
            raise SpaceError(f"{where}: unknown key {key!r}; known are {', '.join(sorted(known))}")
    for key in sorted(required - set(data)):
        raise SpaceError(f"{where}: key {key!r} is missing")


def _counts(where: str, value: object, *, low: int = 1) -> tuple[int, ...]:
    """One whole number or a list of them, ascending and distinct."""
    values = value if isinstance(value, (list, tuple)) else [value]
    for item in values:
        if not isinstance(item, int) or isinstance(item, bool) or item < low:
            raise SpaceError(f"{where}: must be a whole number from {low} (or a list of them), got {item!r}")
    if not values or list(values) != sorted(set(values)):
        raise SpaceError(f"{where}: choices must be distinct and ascending, got {list(values)}")
    return tuple(values)


def _stride(where: str, value: object) -> int:
    if value not in (1, 2) or isinstance(value, bool):
        raise SpaceError(f"{where}: must be 1 or 2, got {value!r}")
    return int(value)


def _activations(where: str, value: object) -> tuple[ActivationKind, ...]:
    values = value if isinstance(value, list) else [value]
    for item in values:
        if item not in ACTIVATIONS:
            raise SpaceError(f"{where}: must be one of {', '.join(ACTIVATIONS)}, got {item!r}")
    if not values or len(set(values)) < len(values):
        raise SpaceError(f"{where}: choices must be distinct, got {values}")
    return tuple(values)
