"""Huffman codes: the shortest prefix codes, and files made with them (Huffman 1952).

A code maps symbols to words, strings of 0 and 1. Codes are canonical (Schwartz & Kallick 1964): words of equal length
follow each other in the order of their symbols, so the lengths, which a file holds, determine all words. The four
letters of the lecture notes, in a code that wastes bits, in the best code, and in one that is not prefix-free:

>>> letters = {"F": 0.5, "C": 0.25, "R": 0.125, "S": 0.125}
>>> expected_length({"F": "00", "C": "01", "R": "100", "S": "101"}, letters)
2.25
>>> code(letters), expected_length(code(letters), letters)
({'C': '10', 'F': '0', 'R': '110', 'S': '111'}, 1.75)
>>> is_prefix_free({"F": "0", "C": "1", "R": "01", "S": "10"})
False
"""

import collections
import heapq
import math
import operator
import struct
import zlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from genjax.theory import alphabets

MAGIC = b"GJH"
VERSION = b"1"
DTYPES = (b"|b1", b"|i1", b"|u1", b"<i2", b"<u2", b"<i4", b"<u4", b"<i8", b"<u8")  # all that a file may name
CHUNK = 1 << 15  # symbols to encode, or bytes to decode, at once
WINDOW = 16  # bits of a table lookup
MAX_SYMBOLS = 1 << 16


def code(frequencies: Mapping[Any, Any]) -> dict[Any, str]:
    """The prefix code with the smallest expected length, as ``{symbol: word}`` in the order of the symbols.

    The code depends on the frequencies alone, not on their order, and is computed exactly. Symbols of frequency 0 do
    not occur and get no word, which would lengthen another one. A single symbol gets the word 0, since words without
    bits could not be counted. Without symbols the code is empty.

    Args:
      frequencies: counts, probabilities or any other numbers ≥ 0, by symbol; the symbols can be sorted.

    Raises:
      ValueError: a frequency is no number, negative or not finite, or the symbols cannot be sorted.
    """
    weights = {symbol: alphabets.frequency(symbol, value) for symbol, value in frequencies.items()}
    symbols = alphabets.ordered([symbol for symbol, weight in weights.items() if weight])
    lengths = _lengths([weights[symbol] for symbol in symbols])
    words = _canonical(lengths)
    return {s: format(word, f"0{n}b") for s, word, n in zip(symbols, words, lengths, strict=True)}


def expected_length(code: Mapping[Any, Any], frequencies: Mapping[Any, Any]) -> float:
    """Σ p(s) |word(s)|, bits per symbol (Cover & Thomas 2006, eq. 5.1); frequencies are divided by their sum.

    Raises:
      ValueError: a symbol that occurs has no word, a word is not of 0 and 1, or nothing occurs.
    """
    weights = {symbol: alphabets.frequency(symbol, value) for symbol, value in frequencies.items()}
    total = sum(weights.values())
    alphabets.words(code)
    if not total:
        raise ValueError("frequencies: expected a symbol that occurs")
    for symbol, weight in weights.items():
        if weight and symbol not in code:
            raise ValueError(f"code: there is no word for {symbol!r}")
    return float(sum(weight * len(code[symbol]) for symbol, weight in weights.items() if weight) / total)


def kraft_sum(code: Mapping[Any, Any]) -> Fraction:
    """Σ 2^-|word|: at most 1 for a code that can be read, 1 where no bit is wasted (Kraft 1949; McMillan 1956)."""
    return sum((Fraction(1, 2 ** len(word)) for word in alphabets.words(code)), Fraction(0))


def is_prefix_free(code: Mapping[Any, Any]) -> bool:
    """Return True if no word begins another one, so that a reader knows each word at its last bit."""
    words = sorted(alphabets.words(code))
    return all(not b.startswith(a) for a, b in zip(words, words[1:], strict=False))


def is_uniquely_decodable(code: Mapping[Any, Any]) -> bool:
    """Return True if no two texts have the same bits (Sardinas & Patterson 1953).

    A reader may have to wait for the last bit of the text. The test collects the tails by which one reading of the same
    bits can be ahead of another; if a tail is a word, the two readings meet.

    >>> is_uniquely_decodable({"F": "0", "C": "01", "R": "11"}), is_uniquely_decodable({"F": "0", "C": "1", "R": "01"})
    (True, False)
    """
    words = set(alphabets.words(code))
    if len(words) < len(code) or "" in words:
        return False
    remainder = lambda text, word: text[len(word) :] if text.startswith(word) else ""
    tails, known = {remainder(a, b) for a in words for b in words} - {""}, set[str]()
    while tails and not tails & words:
        known |= tails
        tails = {remainder(a, b) or remainder(b, a) for a in tails for b in words} - known - {""}
    return not tails


def encode(data: bytes) -> bytes:
    """Compress bytes for ``decode``: header, code lengths, code, checksum."""
    return _write(np.frombuffer(data, np.uint8), b"B")


def decode(data: bytes) -> bytes:
    """Restore the bytes that ``encode`` compressed.

    Raises:
      ValueError: ``data`` is no output of ``encode``, or one bit has changed.
    """
    return _read(data, b"B").tobytes()


def encode_array(array: Shaped[np.ndarray, "..."]) -> bytes:
    """Compress an array of integers or booleans for ``decode_array``; its values are the symbols.

    Raises:
      ValueError: the array holds anything else, or more than 65,536 different values.
    """
    if array.dtype.kind not in "iub":
        raise ValueError(f"array: expected integers or booleans, got {array.dtype}")
    return _write(array, b"A")


def decode_array(data: bytes) -> Shaped[np.ndarray, "..."]:
    """Restore the array that ``encode_array`` compressed, with its shape and dtype, in this machine's byte order.

    Raises:
      ValueError: ``data`` is no output of ``encode_array``, or one bit has changed.
    """
    return _read(data, b"A")


def _lengths(weights: list[Any]) -> list[int]:
    """Depths of the leaves of Huffman's tree; of equal weights the first is merged first, leaves before inner nodes."""
    if len(weights) < 2:
        return [1] * len(weights)
    heap = [(weight, i) for i, weight in enumerate(weights)]
    heapq.heapify(heap)
    parent: list[int] = [0] * (2 * len(weights) - 1)
    for node in range(len(weights), len(parent)):
        (weight_a, a), (weight_b, b) = heapq.heappop(heap), heapq.heappop(heap)
        parent[a] = parent[b] = node
        heapq.heappush(heap, (weight_a + weight_b, node))
    depth = [0] * len(parent)
    for i in reversed(range(len(parent) - 1)):
        depth[i] = depth[parent[i]] + 1
    return depth[: len(weights)]


def _canonical(lengths: list[int]) -> list[int]:
    """The words as numbers: ascending by length, then by symbol (RFC 1951, §3.2.2)."""
    words, word, last = [0] * len(lengths), -1, 0
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        word = (word + 1) << (lengths[i] - last)
        words[i], last = word, lengths[i]
    return words


def _count(symbols: Shaped[np.ndarray, " n"]) -> dict[int, int]:
    """Number of occurrences of each value, in the order of the values."""
    counts: collections.Counter[int] = collections.Counter()
    for start in range(0, len(symbols), CHUNK):
        values, occurrences = np.unique(symbols[start : start + CHUNK], return_counts=True)
        counts.update(dict(zip(values.tolist(), occurrences.tolist(), strict=True)))
        if len(counts) > MAX_SYMBOLS:
            raise ValueError(f"array: expected at most {MAX_SYMBOLS} different values, got at least {len(counts)}")
    return dict(sorted(counts.items()))


def _write(array: Shaped[np.ndarray, "..."], kind: bytes) -> bytes:
    symbols = array.reshape(-1)
    counts = _count(symbols)
    values, lengths = np.array(list(counts), array.dtype.newbyteorder("<")), _lengths(list(counts.values()))
    dtype, num_bits = values.dtype.str.encode(), sum(map(operator.mul, counts.values(), lengths))
    head = MAGIC + VERSION + kind + struct.pack("<BBIQ", len(dtype), array.ndim, len(values), num_bits) + dtype
    shape = struct.pack(f"<{array.ndim}Q", *array.shape)
    body = b"".join([head, shape, values.tobytes(), bytes(lengths), *_pack(symbols, values, lengths)])
    return body + struct.pack("<I", zlib.crc32(body))


def _pack(symbols: Shaped[np.ndarray, " n"], values: Shaped[np.ndarray, " k"], lengths: list[int]) -> Iterator[bytes]:
    """The words of the symbols, one after the other, as bytes; the last byte is padded with zeros."""
    words, word_lengths = np.array(_canonical(lengths), np.uint64), np.array(lengths, np.int64)
    rest = np.zeros(0, np.uint8)
    for start in range(0, len(symbols), CHUNK):
        index = np.searchsorted(values, symbols[start : start + CHUNK])
        length = word_lengths[index]
        owner = np.repeat(np.arange(len(index)), length)  # of each bit: which word it belongs to
        shift = (np.cumsum(length)[owner] - 1 - np.arange(len(owner))).astype(np.uint64)
        bits = np.concatenate([rest, (words[index][owner] >> shift & np.uint64(1)).astype(np.uint8)])
        end = len(bits) // 8 * 8
        rest = bits[end:]
        yield np.packbits(bits[:end]).tobytes()
    yield np.packbits(rest).tobytes()


def _read(data: bytes, kind: bytes) -> Shaped[np.ndarray, "..."]:
    """Check and decode data; the checksum comes first, so that the rest reads only intact data."""
    if data[:3] != MAGIC:
        raise ValueError("data: not a Huffman file: it does not begin with the bytes GJH")
    if data[3:4] != VERSION:
        raise ValueError(f"data: expected format {VERSION.decode()}, got {data[3:4].decode('latin1')!r}")
    if len(data) < 23 or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise ValueError("data: damaged or cut off: the checksum does not match")
    if data[4:5] != kind:
        content = {b"B": "bytes: use decode", b"A": "an array: use decode_array"}.get(data[4:5], "something unknown")
        raise ValueError(f"data: holds {content}")
    try:
        values, lengths, shape, stream, num_bits = _parse(data)
        if kind == b"B" and (values.dtype != np.uint8 or len(shape) != 1):
            raise ValueError("bytes of another type or shape")
        return values[_unpack(stream, lengths.tolist(), math.prod(shape), num_bits)].reshape(shape)
    except (struct.error, OverflowError, ValueError) as error:
        raise ValueError(f"data: the header does not describe the data: {error}") from error


def _parse(data: bytes) -> tuple[Any, Any, tuple[int, ...], Any, int]:
    """Symbols, code lengths, shape, code and its number of bits; refused where one is longer than the data."""
    num_dtype, ndim, size, num_bits = struct.unpack_from("<BBIQ", data, 5)
    dtype = data[19 : 19 + num_dtype]
    if dtype not in DTYPES:
        raise ValueError("unknown type of symbols")
    shape = struct.unpack_from(f"<{ndim}Q", data, 19 + num_dtype)
    values = np.frombuffer(data, dtype.decode(), size, 19 + num_dtype + 8 * ndim)
    offset = 19 + num_dtype + 8 * ndim + values.nbytes
    lengths = np.frombuffer(data, np.uint8, size, offset)
    stream = np.frombuffer(data, np.uint8, (num_bits + 7) // 8, offset + size)
    kraft = sum(Fraction(int(count), 2**n) for n, count in enumerate(np.bincount(lengths)))
    expected = Fraction(1, 2) if size == 1 else int(size > 0)  # the word of a single symbol is 1 bit long
    if math.prod(shape) > num_bits or offset + size + len(stream) + 4 != len(data) or kraft != expected:
        raise ValueError("lengths do not add up")
    return values.astype(values.dtype.newbyteorder("=")), lengths, shape, stream, num_bits


def _unpack(
    stream: UInt8[np.ndarray, " bytes"], lengths: list[int], num: int, num_bits: int
) -> Integer[np.ndarray, " n"]:
    """Indices of the symbols: the word that begins at each bit is looked up for all bits at once, then chained."""
    longest, words = max(lengths, default=1), _canonical(lengths)
    table_symbol, table_length = np.zeros(1 << WINDOW, np.int32), np.zeros(1 << WINDOW, np.int32)
    for i, (word, n) in enumerate(zip(words, lengths, strict=True)):
        if n <= WINDOW:
            prefixed = slice(word << (WINDOW - n), (word + 1) << (WINDOW - n))
            table_symbol[prefixed], table_length[prefixed] = i, n
    long_words = {(n, word): i for i, (word, n) in enumerate(zip(words, lengths, strict=True)) if n > WINDOW}
    padded = np.concatenate([stream, np.zeros(longest // 8 + 4, np.uint8)])
    out, bit, done = np.zeros(num, np.int32), 0, 0
    for start in range(0, len(stream), CHUNK):
        chunk = padded[start : start + CHUNK + 2].astype(np.uint32)
        three_bytes = chunk[:-2] << 16 | chunk[1:-1] << 8 | chunk[2:]
        windows = (three_bytes[:, None] >> np.arange(8, 0, -1, dtype=np.uint32) & 0xFFFF).reshape(-1)
        lengths_here, end = table_length[windows].tolist(), min(8 * (start + CHUNK), num_bits)
        starts: list[int] = []
        long_symbols: dict[int, int] = {}
        while bit < end and done + len(starts) < num:
            starts.append(bit - 8 * start)
            if not (length := lengths_here[bit - 8 * start]):
                length, long_symbols[len(starts) - 1] = _long_word(padded, bit, longest, long_words)
            bit += length
        symbols = table_symbol[windows[starts]]
        for i, symbol in long_symbols.items():
            symbols[i] = symbol
        out[done : done + len(symbols)] = symbols
        done += len(symbols)
    if done != num or bit != num_bits:
        raise ValueError("the code does not end where it should")
    return out


def _long_word(
    stream: UInt8[np.ndarray, " bytes"], start: int, longest: int, words: dict[tuple[int, int], int]
) -> tuple[int, int]:
    """Length and symbol of the word of more than WINDOW bits that begins at a bit."""
    first, last = start // 8, (start + longest) // 8 + 1
    bits = np.unpackbits(stream[first:last])[start % 8 :]
    word = int("".join(map(str, bits[:WINDOW])), 2)
    for length in range(WINDOW + 1, longest + 1):
        word = word << 1 | int(bits[length - 1])
        if (symbol := words.get((length, word))) is not None:
            return length, symbol
    raise ValueError("the code does not end where it should")
