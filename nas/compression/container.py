"""Compressed networks as files: a checkpoint in, one file out, and back to a checkpoint with exactly its weights.

    NASZ, version (1 byte), length of the header (4 bytes), header (JSON, deflated), the tensors' bytes, SHA-256 of all before

The header holds what a checkpoint holds beside its weights, and of each tensor its name, shape, coding and number of bytes.
"""

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.checkpoint import Checkpoint, DataRecord, require_mappings, unfilled_network
from nas.compression.coding import MOST_CLUSTERS, decode, encode
from nas.errors import CheckpointError, CompressionError
from searchspace.architecture import Architecture
from searchspace.errors import ArchitectureError, NasError
from searchspace.files import write_atomically

MAGIC, VERSION = b"NASZ", 1
SUFFIX = ".nasz"
DIGEST_BYTES = 32
LONGEST_HEADER = 1 << 24  # bytes, inflated
_START = struct.Struct("<4sBI")
_TYPES = {"float32": "<f4", "int64": "<i8"}
DAMAGED = (zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, MemoryError)
"""What reading a header that none of ours wrote leads to."""


@dataclass(frozen=True)
class TensorSize:
    """What a tensor takes: `dense_bytes` as float32, `bytes` in the file, in `parts` if it is coded; its share of non-zeros."""

    name: str
    dense_bytes: int
    bytes: int
    density: float
    clusters: int | None
    parts: Mapping[str, int]


def save_compressed(path: Path, checkpoint: Checkpoint) -> tuple[TensorSize, ...]:
    """Write a checkpoint, each tensor in the way that takes fewer bytes: as it is, or coded. What is written is read back.

    Returns:
        What each tensor takes; with the header and the digest they make up the file.

    Raises:
        CompressionError: the file would not restore the weights exactly (a defect of ours); nothing was written.
        NasError: it cannot be written.
    """
    listed, pieces, sizes = [], [], []
    for name, tensor in checkpoint.state.items():
        about, piece, size = _packed(name, tensor.detach().cpu())
        listed.append(about)
        pieces.append(piece)
        sizes.append(size)
    header = {
        "architecture": checkpoint.architecture.to_dict(),
        "classes": list(checkpoint.classes),
        "data": asdict(checkpoint.data),
        "metrics": {key: value for key, value in checkpoint.metrics.items() if isinstance(value, int | float | str)},
        "recipe": dict(checkpoint.recipe),
        "tensors": listed,
    }
    packed = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    body = _START.pack(MAGIC, VERSION, len(packed)) + packed + b"".join(pieces)
    content = body + hashlib.sha256(body).digest()
    restored = parse(content, str(path))
    if not all(torch.equal(restored.state[name], tensor.cpu()) for name, tensor in checkpoint.state.items()):
        raise CompressionError(f"{path}: would not restore the weights exactly; nothing was written")
    write_atomically(path, content)
    return tuple(sizes)


def is_compressed(path: Path) -> bool:
    """Whether a file begins as a compressed network does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def load_compressed(path: Path) -> Checkpoint:
    """The checkpoint that a file was made from, weights equal bit for bit.

    Raises:
        CheckpointError: there is no such file, or it is damaged, of another format, or contradicts itself.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: a compressed network is needed, got none ({error.strerror})") from error
    return parse(content, str(path))


def parse(content: bytes, where: str) -> Checkpoint:
    """The checkpoint in the bytes of a file; `where` names it in messages.

    Raises:
        CheckpointError: as `load_compressed`.
    """
    if len(content) < _START.size + DIGEST_BYTES or not content.startswith(MAGIC):
        raise CheckpointError(
            f"{where}: a compressed network is needed, got a file that is cut short or of another kind"
        )
    _, version, length = _START.unpack_from(content)
    if version != VERSION:
        raise CheckpointError(
            f"{where}: a compressed network of format {VERSION} is needed, got {version}; "
            "use the version of pocketnas that wrote it"
        )
    if hashlib.sha256(content[:-DIGEST_BYTES]).digest() != content[-DIGEST_BYTES:]:
        raise CheckpointError(f"{where}: is damaged (its digest does not fit); make it again")
    try:
        inflated = zlib.decompressobj().decompress(content[_START.size : _START.size + length], LONGEST_HEADER)
        return _checkpoint(json.loads(inflated), memoryview(content)[_START.size + length : -DIGEST_BYTES])
    except (CheckpointError, CompressionError, ArchitectureError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    except (*DAMAGED, NasError) as error:
        raise CheckpointError(f"{where}: is damaged ({str(error) or type(error).__name__})") from error


def _packed(name: str, tensor: torch.Tensor) -> tuple[dict[str, Any], bytes, TensorSize]:
    """What the header says of a tensor, its bytes, and what it takes."""
    array = tensor.numpy()
    dense = array.astype(_TYPES[str(array.dtype)]).tobytes()
    about: dict[str, Any] = {"name": name, "shape": list(array.shape), "type": str(array.dtype)}
    density = float(np.count_nonzero(array) / max(array.size, 1))
    if array.dtype == np.float32 and len(np.unique(array)) <= MOST_CLUSTERS:
        coded = encode(array)
        if len(coded.content) < len(dense):
            size = TensorSize(name, len(dense), len(coded.content), density, coded.clusters, coded.sizes)
            return {**about, **coded.about, "bytes": len(coded.content)}, coded.content, size
    return {**about, "bytes": len(dense)}, dense, TensorSize(name, len(dense), len(dense), density, None, {})


def _checkpoint(header: Mapping[str, Any], content: memoryview) -> Checkpoint:
    require_mappings(header, "architecture", "data", "metrics", "recipe")
    architecture = Architecture.from_dict(header["architecture"])
    expected = unfilled_network(architecture).state_dict()
    state = {}
    for about in header["tensors"]:
        name, shape, size = str(about["name"]), tuple(map(int, about["shape"])), int(about["bytes"])
        if name not in expected or tuple(expected[name].shape) != shape:  # before any memory is taken
            raise CheckpointError(f"{name}: is not a tensor of the architecture in this shape")
        if not 0 <= size <= len(content):
            raise ValueError(f"{name} has {size} bytes of {len(content)}")
        piece, content = content[:size], content[size:]
        if "clusters" in about:
            numbers = {key: int(about[key]) for key in ("clusters", "entries", "gap_bits")}
            array = decode(piece, shape, **numbers)
        else:
            array = np.frombuffer(piece, _TYPES[about["type"]]).reshape(shape).copy()
            if array.size != math.prod(shape):
                raise ValueError(f"{name} has another size")
        state[name] = torch.from_numpy(array)
    if len(content):
        raise ValueError(f"{len(content)} bytes too many")
    data: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in header["data"].items()
    }
    return Checkpoint(
        architecture=architecture,
        state=state,
        classes=tuple(map(str, header["classes"])),
        data=DataRecord(**data),
        metrics=header["metrics"],
        recipe=header["recipe"],
    )
