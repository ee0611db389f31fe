"""Checkpoints: one file that holds a trained network and all that is needed to use it or to judge it.

A checkpoint is a `torch.save` archive of plain data and tensors. It is read by torch's restricted unpickler, which refuses
anything that would run code, and every tensor is compared with what the architecture asks for.
"""

import dataclasses
import io
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from nas.errors import CheckpointError
from searchspace.architecture import Architecture, lower
from searchspace.errors import ArchitectureError
from searchspace.files import write_atomically
from searchspace.network import Network

FORMAT = 1
KEYS = ("format", "architecture", "state", "metrics", "classes", "data", "recipe")
MOST_PARAMS = 1 << 28  # a gigabyte in float32; a file that asks for more would have its reader run out of memory
OF_ITS_SIZE = "accuracy|loss|curve|measured_ms|target"  # metrics that another resolution changes


class Described(Protocol):
    """What a `DataRecord` is made from; `nas.data.Data` is one."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class DataRecord:
    """What a network was trained on, and how pixels become its input: (pixel / 255 − mean) / std, per channel.

    `fingerprint` is that of the data set, "" where it is not known (imported weights).
    """

    name: str
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and isinstance(self.fingerprint, str)):
            raise CheckpointError("data: name and fingerprint must be text")
        for key in ("mean", "std"):
            values = getattr(self, key)
            if not all(isinstance(value, float) and math.isfinite(value) for value in values):
                raise CheckpointError(f"data: {key} must be finite numbers, got {values}")
        if min(self.std, default=0) <= 0 or len(self.mean) != len(self.std):
            raise CheckpointError(f"data: a std above 0 is needed for each mean, got {self.mean} and {self.std}")

    @staticmethod
    def of(data: Described) -> "DataRecord":
        """The record of a data set."""
        return DataRecord(data.name, data.fingerprint, tuple(data.mean), tuple(data.std))


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network.

    Attributes:
        architecture: the network; its resolution and channels are those of the input.
        state: tensors by name, as in `Network.state_dict()`.
        classes: class names in the order of the outputs; empty where they are not known.
        data: what it was trained on, and how its input is normalised.
        metrics: plain data, such as ``accuracy`` and ``loss`` on the validation split, ``epochs``.
        recipe: plain data: how it was trained.

    Raises:
        CheckpointError: names, shapes or types of the tensors are not the architecture's, or classes or channels do not fit.
    """

    architecture: Architecture
    state: Mapping[str, Tensor]
    classes: tuple[str, ...]
    data: DataRecord
    metrics: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_state(self.architecture, self.state)
        if self.classes and len(self.classes) != self.architecture.classes:
            raise CheckpointError(
                f"as many class names as outputs are needed, got {len(self.classes)} names for {self.architecture.classes}"
            )
        if len(self.data.mean) != self.architecture.channels:
            raise CheckpointError(
                f"a mean for each of the {self.architecture.channels} channels is needed, got {len(self.data.mean)}"
            )

    def network(self) -> Network:
        """A fresh network with these weights, in evaluation mode; changing it does not change the checkpoint."""
        network = unfilled_network(self.architecture)
        network.to_empty(device="cpu")
        network.load_state_dict(self.state)
        return network.eval()

    @property
    def judged(self) -> tuple[float, str] | None:
        """Its accuracy, in [0, 1], and the split that it was measured on, as far as the checkpoint tells."""
        for key, split in (("test_accuracy", "test"), ("accuracy", "validation")):
            if isinstance(self.metrics.get(key), float):
                return self.metrics[key], split
        return None

    def at(self, resolution: int) -> "Checkpoint":
        """The same weights for images of so many pixels a side; what was measured at another size is not told of it."""
        if resolution == self.architecture.resolution:
            return self
        metrics = {key: value for key, value in self.metrics.items() if not re.search(OF_ITS_SIZE, key)}
        architecture = dataclasses.replace(self.architecture, resolution=resolution)
        return dataclasses.replace(self, architecture=architecture, metrics=metrics)

    def divided_as(self, start: "Checkpoint") -> "Checkpoint":
        """The same, saying that the images it has seen were divided by the seed of `start`, which it was made from."""
        return dataclasses.replace(self, metrics={**self.metrics, "seed": start.metrics.get("seed", 0)})


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the same content always makes the same bytes.

    Raises:
        NasError: the file cannot be written; nothing was changed.
    """
    content = {
        "format": FORMAT,
        "architecture": checkpoint.architecture.to_dict(),
        "state": {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.state.items()},
        "metrics": dict(checkpoint.metrics),
        "classes": list(checkpoint.classes),
        "data": asdict(checkpoint.data),
        "recipe": dict(checkpoint.recipe),
    }
    write_atomically(path, pack(content))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, or a compressed network; nothing in the file is executed, whatever it holds.

    Raises:
        CheckpointError: there is no such file, or it is damaged, hostile, of another format, or contradicts itself.
    """
    from nas.compression import container  # which needs what is here

    if container.is_compressed(path):
        return container.load_compressed(path)
    content = unpack(path, what="checkpoint")
    if content.get("format") != FORMAT and "format" in content:
        raise CheckpointError(
            f"{path}: a checkpoint of format {FORMAT} is needed, got format {content['format']!r}; "
            "use the version of pocketnas that wrote it"
        )
    if set(content) != set(KEYS):
        raise CheckpointError(
            f"{path}: is not a checkpoint of `nas train` or `nas search`; `nas import` makes one from plain weights"
        )
    try:
        require_mappings(content, "architecture", "state", "metrics", "data", "recipe")
        return Checkpoint(
            architecture=Architecture.from_dict(content["architecture"]),
            state=content["state"],
            classes=tuple(str(name) for name in content["classes"]),
            data=DataRecord(**{key: _as_tuple(value) for key, value in content["data"].items()}),
            metrics=content["metrics"],
            recipe=content["recipe"],
        )
    except (CheckpointError, ArchitectureError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is damaged: {error}") from error


def pack(content: Mapping[str, Any]) -> bytes:
    """Plain data and tensors as the bytes of a torch archive."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def unpack(path: Path, *, what: str) -> dict[str, Any]:
    """Read what `pack` made, tensors on the CPU. `what` the file should be is named in messages.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or holds anything but plain data and tensors.
    """
    try:
        archive = path.read_bytes()
    except OSError as error:
        reason = "is a folder" if path.is_dir() else error.strerror
        raise CheckpointError(f"{path}: a {what} file is needed, got none ({reason})") from error
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            damaged = members.testzip()  # torch does not compare the checksums that it writes
    except Exception as error:  # damaged bytes lead the reader anywhere
        raise CheckpointError(f"{path}: a {what} is needed, got a file that is cut short or of another kind") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: is damaged ({damaged} does not have its checksum); make the {what} again")
    try:
        content = torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than plain data and tensors, so it was not loaded: doing so could run code; "
            f"get the {what} from a source you trust"
        ) from error
    except Exception as error:
        raise CheckpointError(f"{path}: a {what} is needed, got a file that is damaged or of another kind") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a {what} is needed, got a file that holds a {type(content).__name__}")
    return content


def require_mappings(content: Mapping[str, Any], *keys: str) -> None:
    """Refuse what a file holds if something in it is no mapping.

    Raises:
        CheckpointError: something is none.
    """
    for key in keys:
        if not isinstance(content[key], dict):
            raise CheckpointError(f"{key} must be a mapping, got {type(content[key]).__name__}")


def unfilled_network(architecture: Architecture) -> Network:
    """A network whose tensors have names, shapes and types but no memory: nothing is drawn, so no random state changes.

    Raises:
        CheckpointError: it has more than `MOST_PARAMS` parameters.
    """
    params = lower(architecture).params
    if params > MOST_PARAMS:
        raise CheckpointError(f"a network of at most {MOST_PARAMS:,} parameters is needed, got one of {params:,}")
    with torch.device("meta"):
        return Network(architecture)


@lru_cache(maxsize=256)
def _expected(architecture: Architecture) -> Mapping[str, Tensor]:
    """An architecture's tensors without memory; while it is trimmed a network is checked many times."""
    return unfilled_network(architecture).state_dict()


def _check_state(architecture: Architecture, state: Mapping[str, Tensor]) -> None:
    expected = _expected(architecture)
    missing, surplus = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or surplus:
        which = f"lacks {_some(missing)}" if missing else f"has {_some(surplus)} too many"
        raise CheckpointError(f"the tensors must be those of the architecture, but it {which}")
    for name, wanted in expected.items():
        tensor = state[name]
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise CheckpointError(f"{name}: must be a dense tensor, got {type(tensor).__name__}")
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise CheckpointError(
                f"{name}: must be {wanted.dtype} of shape {tuple(wanted.shape)}, got {tensor.dtype} of {tuple(tensor.shape)}"
            )


def _some(names: set[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
