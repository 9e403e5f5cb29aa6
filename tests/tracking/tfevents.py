"""TensorBoard's event files read without TensorBoard, and a run's points in the same shape."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfrefine.tracking.points import Point

Read = dict[tuple[str, int], tuple[float | str, float]]
"""(series, step) to (value, time)."""


def needs(package: str) -> Any:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


def numbers(found: list[Point]) -> Read:
    return {(p.series, p.step): (p.value, p.time) for p in found if not isinstance(p.value, str)}


def crc32c(data: bytes) -> int:
    """Castagnoli's, bit by bit: tensorboardX' own would share its mistakes."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F6_3B78 if crc & 1 else 0)
    return crc ^ 0xFFFF_FFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282_EAD8) & 0xFFFF_FFFF


def records(path: Path) -> Iterator[bytes]:
    """A TFRecord file: length, its crc, data, its crc."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (size, crc) = struct.unpack_from("<QI", data, at)
        assert crc == masked(data[at : at + 8])
        record = data[at + 12 : at + 12 + size]
        assert struct.unpack_from("<I", data, at + 12 + size) == (masked(record),)
        yield record
        at += 16 + size


def event_file(folder: Path) -> tuple[Read, list[tuple[str, int, str]]]:
    from tensorboardX.proto.event_pb2 import Event

    assert crc32c(b"123456789") == 0xE306_9283  # RFC 3720, appendix B.4 has the polynomial; the usual check
    [path] = folder.glob("events.out.tfevents.*")
    found: Read = {}
    written = []
    for record in records(path):
        event = Event.FromString(record)
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "text":
                series, text = value.tag.removesuffix("/text_summary"), value.tensor.string_val[0].decode()
                written.append((series, event.step, text))
            else:
                assert (value.tag, event.step) not in found, "written twice"
                found[value.tag, event.step] = (value.simple_value, event.wall_time)
    return found, written
