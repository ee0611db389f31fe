"""A sparse tensor of few distinct values as bytes and back: codebook, relative indices, both Huffman coded.

What is stored of a tensor, in this order (integers little-endian; see docs/compressed-format.md):

    codebook   float32 × clusters           the distinct non-zero values
    codes      Huffman table and bits       for each non-zero weight its place in the codebook
    gaps       Huffman table and bits       how many zeros stand before it; the largest symbol is so many zeros and no weight
"""

import math
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from bitarray import bitarray
from bitarray.util import canonical_decode, canonical_huffman
from numpy.typing import NDArray

from nas.errors import CompressionError

Array = NDArray[np.float32]
Symbols = NDArray[np.int64]

MOST_CLUSTERS = 256  # a code's symbol is one byte
GAP_BITS = range(2, 9)  # those that are tried; a gap's symbol is one byte


@dataclass(frozen=True)
class Coded:
    """A coded tensor.

    Attributes:
        shape: the tensor's.
        clusters: distinct non-zero values.
        entries: weights that are not zero.
        gap_bits: the largest gap symbol is 2**gap_bits − 1.
        content: the bytes.
        sizes: bytes of each part: ``codebook``, ``codes``, ``gaps``.
    """

    shape: tuple[int, ...]
    clusters: int
    entries: int
    gap_bits: int
    content: bytes
    sizes: dict[str, int]

    @property
    def about(self) -> dict[str, Any]:
        """What a reader must know beside the content, as plain data."""
        return {"clusters": self.clusters, "entries": self.entries, "gap_bits": self.gap_bits}


def encode(tensor: Array) -> Coded:
    """Code a tensor with the gap width that takes the fewest bytes.

    Args:
        tensor: float32 of any shape, finite, with at most 256 distinct values beside 0.

    Raises:
        CompressionError: it has more of them, or one is not finite.
    """
    flat = np.ascontiguousarray(tensor, dtype="<f4").reshape(-1)
    places = np.flatnonzero(flat)
    codebook, codes = np.unique(flat[places], return_inverse=True)
    if len(codebook) > MOST_CLUSTERS or not np.isfinite(codebook).all():
        raise CompressionError(
            f"a tensor to be coded must have at most {MOST_CLUSTERS} distinct finite values beside 0, got {len(codebook)}"
        )
    zeros = np.diff(places, prepend=-1) - 1
    coded_codes = _huffman(codes)
    gap_bits, coded_gaps = min(
        ((bits, _huffman(_gap_symbols(zeros, bits))) for bits in GAP_BITS), key=lambda found: len(found[1])
    )
    parts = {"codebook": codebook.astype("<f4").tobytes(), "codes": coded_codes, "gaps": coded_gaps}
    return Coded(
        shape=tuple(tensor.shape),
        clusters=len(codebook),
        entries=len(places),
        gap_bits=gap_bits,
        content=b"".join(parts.values()),
        sizes={name: len(part) for name, part in parts.items()},
    )


def decode(content: memoryview, shape: tuple[int, ...], *, clusters: int, entries: int, gap_bits: int) -> Array:
    """The tensor that `encode` coded.

    Raises:
        CompressionError: the content is not one that `encode` makes.
    """
    weights = math.prod(shape)
    for what, value, known in (
        ("clusters", clusters, range(MOST_CLUSTERS + 1)),
        ("entries", entries, range(weights + 1)),
        ("gap_bits", gap_bits, GAP_BITS),
    ):
        if value not in known:
            raise CompressionError(f"a coded tensor's {what} must be from {known[0]} to {known[-1]}, got {value}")
    try:
        codebook = np.frombuffer(content[: 4 * clusters], "<f4")
        codes, rest = _unhuffman(content[4 * clusters :])
        symbols, rest = _unhuffman(rest)
        zeros = _zeros(symbols, gap_bits)
        places = np.cumsum(zeros + 1) - 1
        flat = np.zeros(weights, np.float32)
        if len(rest) or len(codes) != entries or len(places) != entries:
            raise ValueError("lengths differ")
        flat[places] = codebook[codes]
    except (ValueError, IndexError, OverflowError, MemoryError, struct.error) as error:
        raise CompressionError(f"a coded tensor is damaged ({error})") from error
    return flat.reshape(shape)


def _gap_symbols(zeros: Symbols, bits: int) -> Symbols:
    """Each gap as symbols of so many bits: the largest as often as it fits, then what is left."""
    largest = (1 << bits) - 1
    skips, rest = np.divmod(zeros, largest)
    symbols = np.full(int(skips.sum()) + len(zeros), largest, dtype=np.int64)
    symbols[np.cumsum(skips + 1) - 1] = rest
    return symbols


def _zeros(symbols: Symbols, bits: int) -> Symbols:
    """What `_gap_symbols` made symbols of."""
    largest = (1 << bits) - 1
    ends = np.flatnonzero(symbols != largest)
    if len(symbols) and (not len(ends) or ends[-1] != len(symbols) - 1):
        raise ValueError("a gap without an end")
    totals = np.cumsum(symbols)[ends]
    return np.diff(totals, prepend=0)


def _huffman(symbols: Symbols) -> bytes:
    """A Huffman stream of symbols in 0…255: the canonical code's table, how many symbols and bits there are, the bits."""
    if not len(symbols):
        return struct.pack("<BII", 0, 0, 0)
    table, counts, order = canonical_huffman(Counter(symbols.tolist()))
    bits = bitarray(endian="big")
    bits.encode(table, symbols.tolist())
    lengths = counts[1:]
    head = struct.pack(f"<B{len(lengths)}H", len(lengths), *lengths) + bytes(order)
    return head + struct.pack("<II", len(symbols), len(bits)) + bits.tobytes()


def _unhuffman(content: memoryview) -> tuple[Symbols, memoryview]:
    """The symbols, and what follows them."""
    (longest,) = struct.unpack_from("<B", content)
    lengths = struct.unpack_from(f"<{longest}H", content, 1)
    start = 1 + 2 * longest
    order = list(content[start : start + sum(lengths)])
    start += sum(lengths)
    count, length = struct.unpack_from("<II", content, start)
    start += 8
    end = start + (length + 7) // 8
    bits = bitarray(endian="big")
    bits.frombytes(bytes(content[start:end]))
    if len(bits) < length or len(bits) - length > 7:
        raise ValueError("bits are missing")
    del bits[length:]
    symbols = list(canonical_decode(bits, [0, *lengths], order)) if longest else []
    if len(symbols) != count:
        raise ValueError("the number of symbols differs")
    return np.array(symbols, dtype=np.int64), content[end:]
