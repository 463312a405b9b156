"""Huffman codes: the shortest prefix codes, and files made with them (Huffman 1952).

Frequencies become code words as strings of 0 and 1. They are canonical (Schwartz & Kallick 1964): words of the same
length follow each other in the order of their symbols, so the lengths alone, which a file carries, tell all words.
The lecture notes' four letters, in a code that wastes bits, in the best one, and in one that cannot be read:

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
CHUNK = 1 << 15  # symbols, or bytes of code, handled at once
WINDOW = 16  # bits looked up at once
MAX_SYMBOLS = 1 << 16


def code(frequencies: Mapping[Any, Any]) -> dict[Any, str]:
    """The prefix code with the smallest expected length, as ``{symbol: word}`` in the order of the symbols.

    It is a function of the frequencies alone, not of the order they come in, and computed exactly. Symbols of frequency
    0 cannot occur and get no word, for it would lengthen another's. One symbol alone gets the word 0, since words of no
    bits could not be counted. No symbols, no words.

    Args:
      frequencies: of symbols that can be sorted; counts, probabilities or any other numbers ≥ 0.

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
    """Whether no word begins another, so that each is recognised at its last bit."""
    words = sorted(alphabets.words(code))
    return all(not b.startswith(a) for a, b in zip(words, words[1:], strict=False))


def is_uniquely_decodable(code: Mapping[Any, Any]) -> bool:
    """Whether no two texts give the same bits (Sardinas & Patterson 1953); a reader may have to wait for the last bit.

    Collects by what tails one reading of the same bits can be ahead of another; where a tail is a word, both meet.

    >>> is_uniquely_decodable({"F": "0", "C": "01", "R": "11"}), is_uniquely_decodable({"F": "0", "C": "1", "R": "01"})
    (True, False)
    """
    words = set(alphabets.words(code))
    if len(words) < len(code) or "" in words:
        return False
    beyond = lambda ahead, word: ahead[len(word) :] if ahead.startswith(word) else ""
    tails, seen = {beyond(a, b) for a in words for b in words} - {""}, set[str]()
    while tails and not tails & words:
        seen |= tails
        tails = {beyond(a, b) or beyond(b, a) for a in tails for b in words} - seen - {""}
    return not tails


def encode(data: bytes) -> bytes:
    """Bytes to a file that ``decode`` reads: header, code lengths, code, checksum."""
    return _write(np.frombuffer(data, np.uint8), b"B")


def decode(data: bytes) -> bytes:
    """The bytes that ``encode`` was given.

    Raises:
      ValueError: the data are not what ``encode`` made, down to the last bit.
    """
    return _read(data, b"B").tobytes()


def encode_array(array: Shaped[np.ndarray, "..."]) -> bytes:
    """An array of integers or booleans to a file that ``decode_array`` reads; the symbols are its values.

    Raises:
      ValueError: the array holds other things, or more than 65,536 different values.
    """
    if array.dtype.kind not in "iub":
        raise ValueError(f"array: expected integers or booleans, got {array.dtype}")
    return _write(array, b"A")


def decode_array(data: bytes) -> Shaped[np.ndarray, "..."]:
    """The array that ``encode_array`` was given, with its shape and dtype, in this machine's byte order.

    Raises:
      ValueError: the data are not what ``encode_array`` made, down to the last bit.
    """
    return _read(data, b"A")


def _lengths(weights: list[Any]) -> list[int]:
    """Depths of Huffman's tree: of equal weights the first is joined first, leaves before joints."""
    if len(weights) < 2:
        return [1] * len(weights)
    heap = [(weight, i) for i, weight in enumerate(weights)]
    heapq.heapify(heap)
    parent: list[int] = [0] * (2 * len(weights) - 1)
    for joint in range(len(weights), len(parent)):
        (first, a), (second, b) = heapq.heappop(heap), heapq.heappop(heap)
        parent[a] = parent[b] = joint
        heapq.heappush(heap, (first + second, joint))
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
    """How often each value occurs, in the order of the values."""
    counts: collections.Counter[int] = collections.Counter()
    for start in range(0, len(symbols), CHUNK):
        values, times = np.unique(symbols[start : start + CHUNK], return_counts=True)
        counts.update(dict(zip(values.tolist(), times.tolist(), strict=True)))
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
    """The words of the symbols, one after the other, as bytes; the last is filled up with zeros."""
    words, widths, rest = np.array(_canonical(lengths), np.uint64), np.array(lengths, np.int64), np.zeros(0, np.uint8)
    for start in range(0, len(symbols), CHUNK):
        part = np.searchsorted(values, symbols[start : start + CHUNK])
        length = widths[part]
        symbol = np.repeat(np.arange(len(part)), length)
        from_end = (np.cumsum(length)[symbol] - 1 - np.arange(len(symbol))).astype(np.uint64)
        bits = np.concatenate([rest, (words[part][symbol] >> from_end & np.uint64(1)).astype(np.uint8)])
        whole = len(bits) // 8 * 8
        rest = bits[whole:]
        yield np.packbits(bits[:whole]).tobytes()
    yield np.packbits(rest).tobytes()


def _read(data: bytes, kind: bytes) -> Shaped[np.ndarray, "..."]:
    """Check everything, then decode: the checksum first, so that what follows reads only what was written."""
    if data[:3] != MAGIC:
        raise ValueError("data: not a Huffman file of this kind: it does not begin with its mark")
    if data[3:4] != VERSION:
        raise ValueError(f"data: expected format {VERSION.decode()}, got {data[3:4].decode('latin1')!r}")
    if len(data) < 23 or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise ValueError("data: damaged or cut off: the checksum does not match")
    if data[4:5] != kind:
        which = {b"B": "bytes: use decode", b"A": "an array: use decode_array"}.get(data[4:5], "something unknown")
        raise ValueError(f"data: holds {which}")
    try:
        values, lengths, shape, stream, num_bits = _parse(data)
        if kind == b"B" and (values.dtype != np.uint8 or len(shape) != 1):
            raise ValueError("bytes of another type or shape")
        return values[_unpack(stream, lengths.tolist(), math.prod(shape), num_bits)].reshape(shape)
    except (struct.error, OverflowError, ValueError) as error:
        raise ValueError(f"data: the header does not describe the data: {error}") from error


def _parse(data: bytes) -> tuple[Any, Any, tuple[int, ...], Any, int]:
    """Symbols, their code lengths, shape, code and its number of bits; nothing that is longer than the data."""
    num_dtype, ndim, size, num_bits = struct.unpack_from("<BBIQ", data, 5)
    dtype = data[19 : 19 + num_dtype]
    if dtype not in DTYPES:
        raise ValueError("unknown type of symbols")
    shape = struct.unpack_from(f"<{ndim}Q", data, 19 + num_dtype)
    values = np.frombuffer(data, dtype.decode(), size, 19 + num_dtype + 8 * ndim)
    place = 19 + num_dtype + 8 * ndim + values.nbytes
    lengths = np.frombuffer(data, np.uint8, size, place)
    stream = np.frombuffer(data, np.uint8, (num_bits + 7) // 8, place + size)
    kraft = sum(Fraction(int(count), 2**n) for n, count in enumerate(np.bincount(lengths)))
    whole = Fraction(1, 2) if size == 1 else int(size > 0)  # one symbol alone uses half of the words
    if math.prod(shape) > num_bits or place + size + len(stream) + 4 != len(data) or kraft != whole:
        raise ValueError("lengths do not add up")
    return values.astype(values.dtype.newbyteorder("=")), lengths, shape, stream, num_bits


def _unpack(
    stream: UInt8[np.ndarray, " bytes"], lengths: list[int], num: int, num_bits: int
) -> Integer[np.ndarray, " n"]:
    """The symbols: what begins at each bit is looked up for all bits at once, then one jumps from word to word."""
    longest, words = max(lengths, default=1), _canonical(lengths)
    table_symbol, table_length = np.zeros(1 << WINDOW, np.int32), np.zeros(1 << WINDOW, np.int32)
    for i, (word, n) in enumerate(zip(words, lengths, strict=True)):
        if n <= WINDOW:
            begun = slice(word << (WINDOW - n), (word + 1) << (WINDOW - n))
            table_symbol[begun], table_length[begun] = i, n
    long_words = {(n, word): i for i, (word, n) in enumerate(zip(words, lengths, strict=True)) if n > WINDOW}
    padded = np.concatenate([stream, np.zeros(longest // 8 + 4, np.uint8)])
    out, place, done = np.zeros(num, np.int32), 0, 0
    for start in range(0, len(stream), CHUNK):
        part = padded[start : start + CHUNK + 2].astype(np.uint32)
        three = part[:-2] << 16 | part[1:-1] << 8 | part[2:]
        windows = (three[:, None] >> np.arange(8, 0, -1, dtype=np.uint32) & 0xFFFF).reshape(-1)
        step, end = table_length[windows].tolist(), min(8 * (start + CHUNK), num_bits)
        places: list[int] = []
        extra: dict[int, int] = {}
        while place < end and done + len(places) < num:
            places.append(place - 8 * start)
            if not (length := step[place - 8 * start]):
                length, extra[len(places) - 1] = _long_word(padded, place, longest, long_words)
            place += length
        found = table_symbol[windows[places]]
        for i, symbol in extra.items():
            found[i] = symbol
        out[done : done + len(found)] = found
        done += len(found)
    if done != num or place != num_bits:
        raise ValueError("the code does not end where it should")
    return out


def _long_word(stream: UInt8[np.ndarray, " bytes"], place: int, longest: int, words: dict) -> tuple[int, int]:
    first, last = place // 8, (place + longest) // 8 + 1
    bits = np.unpackbits(stream[first:last])[place % 8 :]
    word = int("".join(map(str, bits[:WINDOW])), 2)
    for length in range(WINDOW + 1, longest + 1):
        word = word << 1 | int(bits[length - 1])
        if (symbol := words.get((length, word))) is not None:
            return length, symbol
    raise ValueError("the code does not end where it should")
