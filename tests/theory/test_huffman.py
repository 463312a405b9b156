"""Huffman codes against brute force over all small codes, Shannon's bounds, and damaged files."""

import decimal
import fractions
import functools
import itertools
import math
import struct
import zlib

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
        code = huffman.code(dict(enumerate(weights)))
        used = sorted((w for w in weights if w), reverse=True)
        best = min(np.dot(used, lengths) for lengths in shapes(len(used))) if len(used) > 1 else used[0]
        assert math.isclose(huffman.expected_length(code, dict(enumerate(weights))) * sum(weights), best, rel_tol=1e-12)


@laws
@given(frequencies)
def test_a_code_can_be_read_and_wastes_less_than_a_bit(counts):
    code = huffman.code(counts)
    assert huffman.is_prefix_free(code) and huffman.kraft_sum(code) == 1
    entropy = scipy.stats.entropy(list(counts.values()), base=2)
    assert entropy - 1e-9 <= huffman.expected_length(code, counts) < entropy + 1


@laws
@given(frequencies)
def test_the_code_is_canonical_and_depends_on_the_frequencies_alone(counts):
    code = huffman.code(counts)
    assert code == huffman.code(dict(reversed(counts.items()))) == huffman.code({k: 3 * v for k, v in counts.items()})
    ordered = sorted(code, key=lambda symbol: (len(code[symbol]), symbol))
    words = [code[symbol] for symbol in ordered]
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


@laws
@given(st.lists(st.integers(1, 40), min_size=2, max_size=40, unique=True))
def test_a_dyadic_source_costs_its_entropy(depths):
    """Probabilities 2^-n that add up to 1, of a tree that is split at random leaves: a word has n bits."""
    tree = [0]
    for leaf in depths:
        depth = tree.pop(leaf % len(tree))
        tree += [depth + 1, depth + 1]
    p = {i: fractions.Fraction(1, 2**depth) for i, depth in enumerate(tree)}
    code = huffman.code(p)
    assert [len(code[i]) for i in p] == tree
    assert huffman.expected_length(code, p) == float(sum(p[i] * depth for i, depth in enumerate(tree)))


@pytest.mark.parametrize(
    ("words", "unique"),
    [
        ("0 1 01 10", False),  # the notes' ambiguous code
        ("0 01 11", True),  # a suffix code: unique, though a reader must wait
        ("0 01 10", False),  # 010
        ("1 011 01110 1110 10011", False),  # Sardinas & Patterson's tails meet only after some steps
        ("0 0", False),
        ("00 01 100 101", True),
        ("10 00 11 110", True),
        ("", False),
    ],
)
def test_unique_decodability_against_all_texts(words, unique):
    words = words.split(" ")
    assert huffman.is_uniquely_decodable(dict(enumerate(words))) == unique
    texts = [text for n in range(1, 6) for text in itertools.product(words, repeat=n)]
    assert (len({"".join(text) for text in texts}) == len(texts)) == unique


@laws
@given(st.lists(st.text("01", min_size=1, max_size=4), min_size=1, max_size=5))
def test_prefix_codes_are_uniquely_decodable_and_those_obey_kraft(words):
    words = dict(enumerate(words))
    if huffman.is_prefix_free(words):
        assert huffman.is_uniquely_decodable(words)
    if huffman.is_uniquely_decodable(words):
        assert huffman.kraft_sum(words) <= 1  # McMillan 1956


def test_edges_of_codes():
    assert huffman.code({}) == {} and huffman.code({"a": 3}) == {"a": "0"}
    assert huffman.code({"a": 1, "b": 0}) == {"a": "0"}
    assert huffman.expected_length({"a": "0"}, {"a": 0.1, "b": 0}) == 1
    assert huffman.code({i: np.uint8(200) for i in range(3)}) == huffman.code({i: 1 for i in range(3)})
    tiny = {i: fractions.Fraction(1, 3**i) for i in range(50)}  # beyond what floats tell apart when added
    assert max(map(len, huffman.code(tiny).values())) == 49
    close = {"a": 1, "b": 1, "c": decimal.Decimal("2.0000000000000000001"), "d": 2}
    assert {symbol: len(word) for symbol, word in huffman.code(close).items()} == {"a": 3, "b": 3, "c": 1, "d": 2}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: huffman.code({"a": -1, "b": 2}), "nothing negative, got -1 for 'a'"),
        (lambda: huffman.code({"a": float("nan")}), "finite number for 'a', got nan"),
        (lambda: huffman.code({"a": math.inf}), "finite number for 'a', got inf"),
        (lambda: huffman.code({"a": decimal.Decimal("NaN")}), "finite number for 'a', got NaN"),
        (lambda: huffman.code({"a": None}), "finite number for 'a', got None"),
        (lambda: huffman.code({"a": "3", "b": 1}), "finite number for 'a', got 3"),
        (lambda: huffman.code({"a": np.complex64(1 + 1j)}), "finite number for 'a'"),
        (lambda: huffman.code({math.nan: 1, 0.0: 2}), "symbols of one kind"),
        (lambda: huffman.kraft_sum({"a": "2"}), "code: expected words of 0 and 1, got '2' for 'a'"),
        (lambda: huffman.is_prefix_free({"a": 1}), "code: expected words of 0 and 1, got 1"),
        (lambda: huffman.code({"a": 1, 2: 1}), "symbols of one kind"),
        (lambda: huffman.expected_length({"a": "0"}, {"b": 1}), "no word for 'b'"),
        (lambda: huffman.expected_length({}, {}), "a symbol that occurs"),
        (lambda: huffman.encode_array(np.zeros(3)), "integers or booleans, got float64"),
        (lambda: huffman.encode_array(np.arange(70_000)), "at most 65536 different values, got at least"),
        (lambda: huffman.decode(b"something else"), "does not begin with the bytes GJH"),
        (lambda: huffman.decode(b"GJH2" + huffman.encode(b"abc")[4:]), "expected format 1, got '2'"),
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
    for chunk in (huffman.CHUNK, 1009):
        monkeypatch.setattr(huffman, "CHUNK", chunk)
        packed = huffman.encode(data)
        assert huffman.decode(packed) == data
    assert (
        8 * (len(packed) - 100)
        < huffman.expected_length(words, dict(enumerate(FIBONACCI))) * len(data)
        < 8 * len(packed)
    )


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", ">i2", "u4", "i4", ">i4", "u8", "i8", "?"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0, 2), (2, 3, 4)])
def test_arrays_come_back(dtype, shape):
    array = np.random.default_rng(0).integers(0, 2 if dtype == "?" else 100, shape).astype(dtype)
    again = huffman.decode_array(huffman.encode_array(array))
    assert again.dtype == array.dtype.newbyteorder("=") and again.shape == shape and np.array_equal(again, array)


def test_extreme_values_come_back():
    array = np.array([np.iinfo(np.int64).min, -1, 0, np.iinfo(np.int64).max])
    assert np.array_equal(huffman.decode_array(huffman.encode_array(array)), array)


def test_many_symbols_with_words_beyond_the_window_come_back():
    counts = np.ceil(np.random.default_rng(0).gamma(0.1, 200, size=10_000)).astype(int)
    array = np.random.default_rng(1).permutation(np.repeat(np.arange(10_000), counts)) - 2**40
    assert max(map(len, huffman.code(dict(enumerate(counts.tolist()))).values())) > huffman.WINDOW
    assert np.array_equal(huffman.decode_array(huffman.encode_array(array)), array)


def test_an_array_in_any_memory_order_comes_back():
    array = np.asfortranarray(np.arange(60).reshape(3, 4, 5) % 7)[:, ::-1, ::2]
    assert np.array_equal(huffman.decode_array(huffman.encode_array(array)), array)


PACKED = [
    (huffman.encode(b"a file that will be damaged, byte by byte"), huffman.decode),
    (huffman.encode(b"aaaa"), huffman.decode),
    (huffman.encode(b""), huffman.decode),
    (huffman.encode_array(np.arange(-12, 12, dtype=np.int16).reshape(4, 6) // 5), huffman.decode_array),
]


@pytest.mark.parametrize(("packed", "decode"), PACKED, ids=["text", "one symbol", "empty", "array"])
def test_any_damage_is_noticed(packed, decode):
    for i in range(len(packed)):
        with pytest.raises(ValueError, match="data:"):
            decode(packed[:i])
        for flip in range(1, 256):
            with pytest.raises(ValueError, match="data:"):
                decode(packed[:i] + bytes([packed[i] ^ flip]) + packed[i + 1 :])
    for more in (b"\0", b"\0\0\0\0", b"garbage", packed):
        with pytest.raises(ValueError, match="data:"):
            decode(packed + more)


@pytest.mark.parametrize(("packed", "decode"), PACKED, ids=["text", "one symbol", "empty", "array"])
def test_a_forged_file_with_a_right_checksum_is_refused_or_read_but_never_trusted(packed, decode):
    """Whoever forges the checksum too gets a ValueError, or other symbols, but no huge array and no endless loop."""
    body, rng = packed[:-4], np.random.default_rng(0)
    forged = [body[:i] + bytes([value]) + body[i + 1 :] for i in range(len(body)) for value in range(0, 256, 17)]
    for _ in range(300):
        several = bytearray(body)
        for i in rng.integers(4, len(body), 4):
            several[i] = rng.integers(256)
        forged.append(bytes(several))
    refused = 0
    for body in forged:
        try:
            assert memoryview(decode(body + struct.pack("<I", zlib.crc32(body)))).nbytes <= 64 * len(packed)
        except ValueError as error:
            assert str(error).startswith("data: ")
            refused += 1
    assert refused > len(forged) / 3


@pytest.mark.parametrize("count", [42, 60, 2**30, 2**63])
def test_a_length_that_is_forged_is_refused_before_room_is_made_for_it(count):
    """More symbols than the code holds, up to one for each bit and beyond."""
    body = bytearray(huffman.encode(b"a file that will be damaged, byte by byte")[:-4])
    offset = 19 + body[5]
    assert struct.unpack_from("<Q", body, offset) == (41,)
    struct.pack_into("<Q", body, offset, count)
    with pytest.raises(ValueError, match="does not describe the data"):
        huffman.decode(bytes(body) + struct.pack("<I", zlib.crc32(body)))


def test_code_lengths_that_are_forged_are_refused():
    """Whichever one of them changes, the words are too many or leave a gap: Σ 2^-length is no longer 1."""
    body = huffman.encode(b"a file that will be damaged, byte by byte")[:-4]
    (size,) = struct.unpack_from("<I", body, 7)
    first = 19 + body[5] + 8 + size
    for i, length in itertools.product(range(first, first + size), (0, 1, 2, 6, 17, 64, 255)):
        forged = body[:i] + bytes([length]) + body[i + 1 :]
        if length != body[i]:
            with pytest.raises(ValueError, match="lengths do not add up"):
                huffman.decode(forged + struct.pack("<I", zlib.crc32(forged)))
