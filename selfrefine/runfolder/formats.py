"""Files by their endings: .gz, .zst and .parquet are read as the lines of JSON that they hold.

.zst and .parquet need pyarrow (the extra `files`), which is imported when such a file is met.
"""

from __future__ import annotations

import gzip
import io
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import msgspec

from selfrefine.errors import ConfigError, DataError, UsageError

UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading a packed stream may raise that is torn or was never one."""
_ROWS_AT_ONCE = 256
_UNWRITABLE = (".parquet", ".bz2", ".xz", ".zip", ".7z")
_MAGIC = {
    b"\x1f\x8b": "gzip data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"PAR1\x15": "a Parquet file",  # a text may begin with these letters
    b"BZh91AY&SY": "bzip2 data",
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_TABLE = (".csv", ".tsv")
_ROWS = "import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(sys.stdin{})]"


def bare(name: str) -> str:
    """The name without .gz or .zst."""
    return name.removesuffix(".gz").removesuffix(".zst")


def unpacked(path: str, stream: BinaryIO) -> Iterable[bytes]:
    """The lines of an open file. Raises: ConfigError without the extra; OSError, ValueError (broken)."""
    if path.endswith(".gz"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if path.endswith(".zst"):
        return io.BufferedReader(_pyarrow(path).CompressedInputStream(stream, "zstd"))
    if path.endswith(".parquet"):
        _pyarrow(path)
        from pyarrow import parquet

        return _parquet_lines(parquet.ParquetFile(stream), path)
    return stream


def foreign(first: bytes, name: str) -> str | None:
    """What a stream is, by its first bytes, if it is no JSON Lines and no text, and how to convert it."""
    if what := next((what for magic, what in _MAGIC.items() if first.startswith(magic)), None):
        return f"this is {what}; convert it to JSON Lines, or name the file by its format"
    if first.startswith(_UTF_16):
        return "this is UTF-16 text; convert it to UTF-8: iconv -f UTF-16 -t UTF-8"
    if bare(name).endswith(_TABLE) and not first.lstrip().startswith(b"{"):
        code = _ROWS.format(", delimiter='\\t'" if bare(name).endswith(".tsv") else "")
        files = f"< {shlex.quote(name)} > rows.jsonl"
        return f'CSV is not read; convert it to JSON Lines:\npython -c "{code}" {files}'
    return None


def check_output(path: str) -> None:
    """Raises: UsageError for an ending under which no rows are written; ConfigError without the extra."""
    if path.endswith(_UNWRITABLE):
        raise UsageError(f"-o {path}: rows are written as .jsonl, .jsonl.gz or .jsonl.zst")
    if path.endswith(".zst"):
        _pyarrow(path)


@contextmanager
def packed(path: str, write: Callable[[bytes], object]) -> Iterator[Callable[[bytes], object]]:
    """`write` for what is to be written under that name: compressed where the ending says so.

    The same rows give the same bytes: gzip's header holds no name and no time.
    """
    if path.endswith(".gz"):
        with gzip.GzipFile(filename="", mode="wb", fileobj=_Sink(write), mtime=0) as stream:
            yield stream.write
    elif path.endswith(".zst"):
        with _pyarrow(path).CompressedOutputStream(_Sink(write), "zstd") as stream:
            yield stream.write
    else:
        yield write


class _Sink(io.RawIOBase):
    """A file to write to, made of a function."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._send(bytes(data))
        return len(data)


def _pyarrow(path: str) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise ConfigError(f"{path}: needs the package pyarrow: pip install 'selfrefine[files]'") from None
    return pyarrow


def _parquet_lines(file: Any, path: str) -> Iterator[bytes]:
    number = 0
    try:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield msgspec.json.encode(_without_nulls(row)) + b"\n"
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"cannot read {path} after row {number}: {error}") from None


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """A table has every column in every row: null is what a row has not. So do `tags` and `meta`."""
    kept = {key: value for key, value in row.items() if value is not None}
    for key in ("tags", "meta", "task"):
        if isinstance(kept.get(key), dict):
            kept[key] = _without_nulls(kept[key])
    return kept
