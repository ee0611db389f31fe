"""Files of compressed networks: exact, accounted for to the byte, refused when damaged, read wherever a checkpoint is."""

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.checkpoint import Checkpoint, load_checkpoint
from nas.compression.container import LONGEST_HEADER, load_compressed, parse, save_compressed
from nas.compression.magnitude import Pruned, layers, masks
from nas.compression.sharing import share
from nas.deployment import random_checkpoint
from nas.errors import CheckpointError
from searchspace.architecture import Architecture
from searchspace.blocks import UIB, ClassicHead, Conv, Fire

SMALL = Architecture(
    (
        Conv(cout=16, stride=2),
        UIB(cout=24, hidden=64, dw_start=3, dw_mid=5),
        Fire(squeeze=8, expand1x1=32, expand3x3=32, bypass="conv"),
    ),
    head=ClassicHead(),
    resolution=16,
    classes=5,
)


def constrained(start: Checkpoint, density: float, bits: int) -> Checkpoint:
    """The checkpoint, pruned and shared without training."""
    network = start.network()
    found = layers(start)
    Pruned(masks(start, {layer.name: density for layer in found})).apply(network)
    pruned = dataclasses.replace(start, state=network.state_dict())
    share(pruned, found, conv_bits=bits, linear_bits=bits).apply(network)
    return dataclasses.replace(start, state=network.state_dict())


@pytest.mark.parametrize("density", [1.0, 0.33, 0.05])
@pytest.mark.parametrize("bits", [1, 5, 8])
def test_the_restored_network_gives_the_same_outputs(density: float, bits: int, tmp_path: Path) -> None:
    shared = constrained(random_checkpoint(SMALL), density, bits)
    path = tmp_path / "network.nasz"
    sizes = save_compressed(path, shared)
    restored = load_checkpoint(path)
    assert restored.architecture == SMALL
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(restored.network()(images), shared.network()(images))
    coded = [size for size in sizes if size.clusters is not None]
    assert all(size.bytes == sum(size.parts.values()) for size in coded)
    assert all(size.clusters is not None and size.clusters < 2**bits for size in coded)
    in_tensors = sum(size.bytes for size in sizes)
    header = int.from_bytes(path.read_bytes()[5:9], "little")
    assert path.stat().st_size == in_tensors + header + 9 + 32


def test_an_ordinary_network_survives_as_well(tmp_path: Path) -> None:
    start = random_checkpoint(SMALL)
    save_compressed(tmp_path / "plain.nasz", start)
    restored = load_compressed(tmp_path / "plain.nasz")
    assert all(torch.equal(restored.state[name], tensor) for name, tensor in start.state.items())


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "network.nasz"
    save_compressed(path, constrained(random_checkpoint(SMALL), 0.3, 4))
    content = path.read_bytes()
    for place in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[place] ^= 0x40
        with pytest.raises(CheckpointError):
            parse(bytes(damaged), "file")
    for length in (0, 3, 8, len(content) // 2, len(content) - 1):
        with pytest.raises(CheckpointError):
            parse(content[:length], "file")


def test_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "network.nasz"
    save_compressed(path, random_checkpoint(SMALL))
    content = bytearray(path.read_bytes())
    content[4] = 9
    with pytest.raises(CheckpointError, match="format 1 is needed, got 9"):
        parse(bytes(content), "file")


def crafted(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A file whose header says something else, its digest right."""
    length = int.from_bytes(content[5:9], "little")
    header = json.loads(zlib.decompress(content[9 : 9 + length]))
    changed = change(header)
    packed = zlib.compress(changed if isinstance(changed, bytes) else json.dumps(header).encode())
    body = content[:5] + len(packed).to_bytes(4, "little") + packed + content[9 + length : -32]
    return body + hashlib.sha256(body).digest()


def coded(header: dict[str, Any]) -> dict[str, Any]:
    """What is said of the first coded tensor."""
    return next(about for about in header["tensors"] if "clusters" in about)


CRAFTED: dict[str, Callable[[dict[str, Any]], object]] = {
    "gap_bits": lambda header: coded(header).update(gap_bits=10**12),
    "clusters": lambda header: coded(header).update(clusters=10**9),
    "entries": lambda header: coded(header).update(entries=-1),
    "bytes": lambda header: coded(header).update(bytes=-5),
    "infinite": lambda header: coded(header).update(bytes=float("inf")),
    "shape": lambda header: coded(header).update(shape=[float("inf")]),
    "wide": lambda header: header["architecture"]["blocks"][0].update(cout=10**7),
    "very wide": lambda header: header["architecture"]["blocks"][0].update(cout=10**30),
    "architecture": lambda header: header.update(architecture=[]),
    "metrics": lambda header: header.update(metrics=["accuracy"]),
    "recipe": lambda header: header.update(recipe="mine"),
    "data": lambda header: header.update(data=None),
    "tensors": lambda header: header.update(tensors=[3]),
    "no object": lambda header: b"[]",
    "nested": lambda header: b"[" * 100_000,
    "long": lambda header: b" " * (LONGEST_HEADER + 1) + b"{}",
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "network.nasz"
    save_compressed(path, constrained(random_checkpoint(SMALL), 0.3, 4))
    parse(crafted(path.read_bytes(), lambda header: None), "file")
    with pytest.raises(CheckpointError, match=r"^file: .+") as caught:
        parse(crafted(path.read_bytes(), CRAFTED[name]), "file")
    assert "\n" not in str(caught.value)
