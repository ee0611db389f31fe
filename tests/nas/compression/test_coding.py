"""Coded tensors: exact for every tensor of few values, and readable by what the description of the format says alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nas.compression.coding import decode, encode
from nas.errors import CompressionError


@st.composite
def sparse_tensors(draw: st.DrawFn) -> NDArray[np.float32]:
    """Of any shape, of at most 256 values beside 0, from empty and all zero to dense; with runs of zeros longer than a symbol."""
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    source = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = source.standard_normal(draw(st.integers(1, 256))).astype(np.float32)
    kept = source.random(shape) < draw(st.sampled_from([0.0, 0.001, 0.05, 0.5, 1.0]))
    return np.where(kept, source.choice(values, shape), np.float32(0))


def by_description(
    content: bytes, shape: tuple[int, ...], clusters: int, entries: int, gap_bits: int
) -> NDArray[np.float32]:
    """A decoder that follows docs/compressed-format.md word by word, bit by bit, and nothing else."""
    place = 0

    def integer(size: int) -> int:
        nonlocal place
        place += size
        return int.from_bytes(content[place - size : place], "little")

    def stream() -> list[int]:
        nonlocal place
        counts = [integer(2) for _ in range(integer(1))]
        order = [integer(1) for _ in range(sum(counts))]
        symbols, length = integer(4), integer(4)
        bits = "".join(f"{byte:08b}" for byte in content[place : place + -(-length // 8)])
        place += -(-length // 8)
        assert set(bits[length:]) <= {"0"}
        table, code, before = {}, 0, 0
        lengths = [size for size, count in enumerate(counts, start=1) for _ in range(count)]
        for position, size in enumerate(lengths):
            code = (code + 1) << (size - before) if position else 0
            table[f"{code:0{size}b}"] = order[position]
            before = size
        found, word = [], ""
        for bit in bits[:length]:
            word += bit
            if word in table:
                found.append(table[word])
                word = ""
        assert not word
        assert len(found) == symbols
        return found

    codebook = np.frombuffer(content[: 4 * clusters], "<f4")
    place = 4 * clusters
    codes, gaps = stream(), stream()
    assert place == len(content)
    assert len(codes) == entries
    flat: list[float] = []
    following = iter(codes)
    for symbol in gaps:
        flat += [0.0] * symbol
        if symbol < 2**gap_bits - 1:
            flat.append(codebook[next(following)])
    flat += [0.0] * (int(np.prod(shape)) - len(flat))
    return np.array(flat, np.float32).reshape(shape)


@given(sparse_tensors())
def test_decoding_is_exact(tensor: NDArray[np.float32]) -> None:
    coded = encode(tensor)
    assert sum(coded.sizes.values()) == len(coded.content)
    assert coded.entries == np.count_nonzero(tensor)
    np.testing.assert_array_equal(decode(memoryview(coded.content), tensor.shape, **coded.about), tensor)


@given(sparse_tensors())
def test_the_description_is_enough_to_decode(tensor: NDArray[np.float32]) -> None:
    coded = encode(tensor)
    np.testing.assert_array_equal(by_description(coded.content, tensor.shape, **coded.about), tensor)


@given(sparse_tensors(), st.data())
def test_damaged_content_is_an_error_or_another_tensor_but_nothing_else(
    tensor: NDArray[np.float32], data: st.DataObject
) -> None:
    coded = encode(tensor)
    damaged = bytearray(coded.content[: data.draw(st.integers(0, len(coded.content)))])
    if damaged:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert decode(memoryview(bytes(damaged)), tensor.shape, **coded.about).shape == tensor.shape
    except CompressionError as error:
        assert "damaged" in str(error)


def test_too_many_values_are_refused() -> None:
    with pytest.raises(CompressionError, match="256"):
        encode(np.arange(1, 300, dtype=np.float32))
    with pytest.raises(CompressionError, match="finite"):
        encode(np.array([1.0, np.inf], np.float32))
