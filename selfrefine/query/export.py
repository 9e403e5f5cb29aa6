"""A run's answers as one flat file, written as they are read: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from selfrefine.errors import ConfigError
from selfrefine.query.flat import columns, csv_line, flat_rows
from selfrefine.query.rows import RowFile
from selfrefine.runfolder.formats import bare
from selfrefine.runfolder.jsonl import open_output

ENDINGS = (".parquet", ".csv", ".jsonl")
AT_ONCE = 2_000
"""Rows held; of Parquet also a row group."""


def write(files: Sequence[RowFile], output: str, exact: bool = False) -> tuple[int, int, int]:
    """Returns the rows and columns written, and how many tags and rewards got no column.

    The rows are read twice: the columns are not known before.

    The file appears whole or not at all. Raises: DataError (a row), RunFolderError (the disk), ConfigError.
    """
    parquet = output.endswith(".parquet")
    if parquet:
        _arrow(output)
    names, tags, rewards, left = columns(files)
    rows = flat_rows(files, tags, rewards)
    with open_output(output, table=True) as send:
        if parquet:
            return _parquet(names, rows, send), len(names), left
        done = 0
        if bare(output).endswith(".csv"):
            send(csv_line(list(names), exact).encode())
        while some := list(islice(rows, AT_ONCE)):
            done += len(some)
            if bare(output).endswith(".csv"):
                send("".join(csv_line(row, exact) for row in some).encode())
            else:
                send(
                    b"".join(msgspec.json.encode(dict(zip(names, row, strict=True))) + b"\n" for row in some)
                )
    return done, len(names), left


def _parquet(names: dict[str, str], rows: Iterable[Sequence[Any]], send: Callable[[bytes], object]) -> int:
    import pyarrow
    from pyarrow import parquet

    kinds = {"string": pyarrow.string(), "int64": pyarrow.int64(), "double": pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in names.items()])
    rows, done = iter(rows), 0
    with parquet.ParquetWriter(pyarrow.PythonFile(_Sink(send), "w"), schema, compression="zstd") as writer:
        while some := list(islice(rows, AT_ONCE)):
            done += len(some)
            arrays = [
                pyarrow.array(values, field.type)
                for values, field in zip(zip(*some, strict=True), schema, strict=True)
            ]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
    return done


class _Sink:
    """What pyarrow takes for a file: it writes, and asks where it is."""

    closed = False

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send, self._at = send, 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._send(piece)
        self._at += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True


def _arrow(output: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"-o {output}: needs the package pyarrow: pip install 'selfrefine[files]'"
        ) from None
