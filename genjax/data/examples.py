"""Parser of the records of tensorflow-datasets: ``tf.train.Example`` in the protocol buffers' wire format.

Example = {1: Features}; Features = {1: entries of a map}; entry = {1: name, 2: Feature}; Feature = {1: list of bytes},
{2: of float} or {3: of int64}; each list has its values in field 1, integers one by one or packed.
(tensorflow/core/example/feature.proto; protobuf.dev/programming-guides/encoding.)
"""

from collections.abc import Iterator

Value = list[bytes] | list[int]
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIDTHS = {FIXED64: 8, FIXED32: 4}


def parse(record: bytes) -> dict[str, Value]:
    """Parse the features of a record by name: bytes and integers; floats are skipped.

    Raises:
      ValueError: the record is damaged.
    """
    values: dict[str, Value] = {}
    for features in _nested(record, 1):
        for entry in _nested(features, 1):
            name = b"".join(_nested(entry, 1)).decode()
            for feature in _nested(entry, 2):
                for number, body in _fields(feature):
                    if number == 1 and isinstance(body, bytes):
                        values[name] = list(_nested(body, 1))
                    elif number == 3 and isinstance(body, bytes):
                        values[name] = list(_integers(body))
    return values


def _nested(message: bytes, field: int) -> Iterator[bytes]:
    for number, body in _fields(message):
        if number == field and isinstance(body, bytes):
            yield body


def _integers(message: bytes) -> Iterator[int]:
    for number, body in _fields(message):
        if number != 1:
            continue
        if isinstance(body, int):
            yield _signed(body)
            continue
        position = 0
        while position < len(body):
            value, position = _varint(body, position)
            yield _signed(value)


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == BYTES:
            length, position = _varint(message, position)
        elif kind in _WIDTHS:
            length = _WIDTHS[kind]
        else:
            raise ValueError(f"a record has a field of the wire type {kind}")
        if position + length > len(message):
            raise ValueError("a record ends within a field")
        yield number, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("a record ends within a number")
        byte = message[position]
        value |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return value, position
    raise ValueError("a record has a number of more than ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
