"""Huffman codes against brute force over all small codes, Shannon's bounds, and damaged files."""

import fractions
import functools
import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from genjax.theory import huffman

laws = settings(derandomize=True, deadline=None, max_examples=100)
frequencies = st.dictionaries(st.integers(0, 60), st.integers(1, 10**6), min_size=2, max_size=40)


@functools.cache
def shapes(n):
    """The word lengths, ascending, of all prefix codes of n words that waste no bit."""
    if n == 1:
        return {(0,)}
    deeper = lambda lengths: tuple(length + 1 for length in lengths)
    return {
        tuple(sorted(deeper(left) + deeper(right)))
        for k in range(1, n)
        for left, right in itertools.product(shapes(k), shapes(n - k))
    }


@pytest.mark.parametrize("n", range(2, 8))
def test_no_prefix_code_is_shorter(n):
    rng = np.random.default_rng(n)
    for weights in [
        *rng.integers(1, 30, (40, n)).tolist(),
        *(100 * rng.dirichlet(np.full(n, 0.3), 10)).round(6).tolist(),
    ]:
        ours = huffman.code(dict(enumerate(weights)))
        used = sorted((w for w in weights if w), reverse=True)
        best = min(np.dot(used, lengths) for lengths in shapes(len(used))) if len(used) > 1 else used[0]
        assert math.isclose(huffman.expected_length(ours, dict(enumerate(weights))) * sum(weights), best, rel_tol=1e-12)


@laws
@given(frequencies)
def test_a_code_can_be_read_and_wastes_less_than_a_bit(counts):
    ours = huffman.code(counts)
    assert huffman.is_prefix_free(ours) and huffman.kraft_sum(ours) == 1
    entropy = scipy.stats.entropy(list(counts.values()), base=2)
    assert entropy - 1e-9 <= huffman.expected_length(ours, counts) < entropy + 1


@laws
@given(frequencies)
def test_the_code_is_canonical_and_depends_on_the_frequencies_alone(counts):
    ours = huffman.code(counts)
    assert ours == huffman.code(dict(reversed(counts.items()))) == huffman.code({k: 3 * v for k, v in counts.items()})
    ordered = sorted(ours, key=lambda symbol: (len(ours[symbol]), symbol))
    words = [ours[symbol] for symbol in ordered]
    assert words == sorted(words) and set(words[0]) <= {"0"}


def test_the_notes_codes():
    letters = {"F": 50, "C": 25, "R": 12.5, "S": 12.5}
    assert (
        huffman.expected_length(huffman.code(letters), letters)
        == 1.75
        == scipy.stats.entropy(list(letters.values()), base=2)
    )
    assert not huffman.is_prefix_free({"F": "0", "C": "1", "R": "01", "S": "10"})
    assert huffman.kraft_sum({"F": "0", "C": "1", "R": "01", "S": "10"}) > 1


@pytest.mark.parametrize(
    ("p", "length", "entropy"), [([0.9, 0.1], 1, 0.469), ([0.4, 0.35, 0.2, 0.05], 1.85, 1.7394), ([1 / 8] * 8, 3, 3)]
)
def test_known_lengths(p, length, entropy):
    table = dict(enumerate(p))
    assert math.isclose(huffman.expected_length(huffman.code(table), table), length, rel_tol=1e-12)
    assert math.isclose(scipy.stats.entropy(p, base=2), entropy, abs_tol=5e-4)


def test_edges_of_codes():
    assert huffman.code({}) == {} and huffman.code({"a": 3}) == {"a": "0"}
    assert huffman.code({"a": 1, "b": 0}) == {"a": "0"}
    tiny = {i: fractions.Fraction(1, 3**i) for i in range(50)}  # beyond what floats tell apart when added
    assert max(map(len, huffman.code(tiny).values())) == 49


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: huffman.code({"a": -1, "b": 2}), "nothing negative, got -1 for 'a'"),
        (lambda: huffman.code({"a": float("nan")}), "finite number for 'a', got nan"),
        (lambda: huffman.code({"a": 1, 2: 1}), "symbols of one kind"),
        (lambda: huffman.expected_length({"a": "0"}, {"b": 1}), "no word for 'b'"),
        (lambda: huffman.expected_length({}, {}), "a symbol that occurs"),
        (lambda: huffman.encode_array(np.zeros(3)), "integers or booleans, got float64"),
        (lambda: huffman.encode_array(np.arange(70_000)), "at most 65536 different values, got 70000"),
        (lambda: huffman.decode(b"something else"), "does not begin with its mark"),
        (lambda: huffman.decode(huffman.encode_array(np.arange(3))), "holds an array: use decode_array"),
        (lambda: huffman.decode_array(huffman.encode(b"abc")), "holds bytes: use decode"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@laws
@given(st.binary(max_size=300))
def test_bytes_come_back(data):
    assert huffman.decode(huffman.encode(data)) == data


FIBONACCI = [1, 1]
while len(FIBONACCI) < 24:
    FIBONACCI.append(FIBONACCI[-1] + FIBONACCI[-2])


def test_long_words_and_many_chunks_come_back(monkeypatch):
    """Counts that grow like Fibonacci's numbers make the longest words; blocks are cut in the middle of words."""
    rng = np.random.default_rng(0)
    data = rng.permutation(np.repeat(np.arange(24, dtype=np.uint8), FIBONACCI)).tobytes()
    words = huffman.code(dict(enumerate(FIBONACCI)))
    assert max(map(len, words.values())) == 23 > huffman.WINDOW
    for chunk in (1 << 18, 1009):
        monkeypatch.setattr(huffman, "CHUNK", chunk)
        packed = huffman.encode(data)
        assert huffman.decode(packed) == data
    assert (
        8 * (len(packed) - 100)
        < huffman.expected_length(words, dict(enumerate(FIBONACCI))) * len(data)
        < 8 * len(packed)
    )


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i4", "i8", "u8", "?"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0, 2), (2, 3, 4)])
def test_arrays_come_back(dtype, shape):
    array = np.random.default_rng(0).integers(0, 2 if dtype == "?" else 100, shape).astype(dtype)
    again = huffman.decode_array(huffman.encode_array(array))
    assert again.dtype == array.dtype.newbyteorder("=") and again.shape == shape and np.array_equal(again, array)


def test_extreme_values_come_back():
    array = np.array([np.iinfo(np.int64).min, -1, 0, np.iinfo(np.int64).max])
    assert np.array_equal(huffman.decode_array(huffman.encode_array(array)), array)


def test_any_damage_is_noticed():
    packed = huffman.encode(b"a file that will be damaged, byte by byte")
    for i in range(len(packed)):
        with pytest.raises(ValueError, match="data:"):
            huffman.decode(packed[:i])
        for flip in (1, 0x80, 0xFF):
            with pytest.raises(ValueError, match="data:"):
                huffman.decode(packed[:i] + bytes([packed[i] ^ flip]) + packed[i + 1 :])
    with pytest.raises(ValueError, match="data:"):
        huffman.decode(packed + b"\0")


def test_a_forged_file_with_a_right_checksum_is_refused_or_read_but_never_trusted():
    """Whoever damages the checksum too gets an error as well, or other bytes, but no huge array and no endless loop."""
    packed = huffman.encode(b"abracadabra" * 20)
    import struct
    import zlib

    refused = 0
    for i in range(len(packed) - 4):
        for flip in (1, 0x80, 0xFF):
            body = packed[:i] + bytes([packed[i] ^ flip]) + packed[i + 1 : -4]
            try:
                assert len(huffman.decode(body + struct.pack("<I", zlib.crc32(body)))) <= 8 * len(packed)
            except ValueError:
                refused += 1
    assert refused > 100
