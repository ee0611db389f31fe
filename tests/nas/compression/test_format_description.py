"""docs/compressed-format.md is enough: a reader written from it alone restores a file's tensors exactly."""

import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.compression.container import save_compressed
from nas.compression.statistics import settled
from nas.deployment import random_checkpoint
from tests.nas.compression.test_container import SMALL, constrained


class Reader:
    """The bytes of a file, read as the description says; plain Python."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def take(self, count: int) -> bytes:
        self.place += count
        assert self.place <= len(self.content)
        return self.content[self.place - count : self.place]

    def integer(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def file(self) -> tuple[dict[str, Any], dict[str, list[float]]]:
        """The header, and every tensor's values in row-major order."""
        assert hashlib.sha256(self.content[:-32]).digest() == self.content[-32:]
        assert self.take(4) == b"NASZ"
        assert self.integer(1) == 1
        header = json.loads(zlib.decompress(self.take(self.integer(4))).decode("utf-8"))
        tensors = {about["name"]: self.tensor(about) for about in header["tensors"]}
        assert self.place == len(self.content) - 32
        return header, tensors

    def tensor(self, about: dict[str, Any]) -> list[float]:
        start, size = self.place, 1
        for side in about["shape"]:
            size *= side
        if "clusters" not in about:
            letter = {"float32": "f", "int64": "q"}[about["type"]]
            values = list(struct.unpack(f"<{size}{letter}", self.take(about["bytes"])))
        else:
            codebook = struct.unpack(f"<{about['clusters']}f", self.take(4 * about["clusters"]))
            codes, gaps = self.symbols(), self.symbols()
            assert len(codes) == about["entries"]
            values = []
            for gap in gaps:
                values += [0.0] * gap
                if gap < 2 ** about["gap_bits"] - 1:
                    values.append(codebook[codes[sum(1 for value in values if value)]])
            values += [0.0] * (size - len(values))
        assert self.place - start == about["bytes"]
        return values

    def symbols(self) -> list[int]:
        """A Huffman stream."""
        counts = [self.integer(2) for _ in range(self.integer(1))]
        lengths = [length for length, count in enumerate(counts, 1) for _ in range(count)]
        codes: dict[tuple[int, int], int] = {}  # by length and value
        code = 0
        for position, length in enumerate(lengths):
            if position:
                code = (code + 1) << (length - lengths[position - 1])
            codes[length, code] = self.integer(1)
        count, bits = self.integer(4), self.integer(4)
        packed = self.take((bits + 7) // 8)
        found, value, length = [], 0, 0
        for place in range(bits):
            value, length = value << 1 | packed[place // 8] >> (7 - place % 8) & 1, length + 1
            if (length, value) in codes:
                found.append(codes[length, value])
                value, length = 0, 0
        assert length == 0
        assert len(found) == count
        return found


@pytest.mark.parametrize(("density", "bits"), [(1.0, 1), (0.3, 5), (0.02, 8)])
def test_a_reader_written_from_the_description_alone_restores_a_file(density: float, bits: int, tmp_path: Path) -> None:
    checkpoint = settled(constrained(random_checkpoint(SMALL), density, bits))
    path = tmp_path / "network.nasz"
    save_compressed(path, checkpoint)
    header, tensors = Reader(path.read_bytes()).file()
    assert header["architecture"] == json.loads(checkpoint.architecture.to_json())
    assert header["data"]["mean"] == list(checkpoint.data.mean)
    assert any("clusters" in about for about in header["tensors"])
    assert tensors.keys() == checkpoint.state.keys()
    for name, tensor in checkpoint.state.items():
        assert torch.equal(torch.tensor(tensors[name], dtype=tensor.dtype).reshape(tensor.shape), tensor), name
