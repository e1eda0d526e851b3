"""Reading and checking the values of a ``table`` format. Free of torch."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, Literal

TableEntry = float | Literal["nan", "inf", "-inf"]
"""A value of the table. NaN and inf are written as words, so that settings survive as JSON."""

MAX_BITS = 16


def read_values(given: Any) -> tuple[TableEntry, ...]:
    """Check the values of a table, reading them from a file if ``given`` is its path.

    A file ending in ``.json`` holds a list; any other file holds numbers between white space or
    commas, with comments from ``#`` to the end of the line. Raises ``ValueError``, which names the
    first value at fault by its code.
    """
    where = "values"
    if isinstance(given, str | Path):
        where = str(given)
        given = _from_file(Path(given))
    if not isinstance(given, list | tuple):
        raise ValueError(
            f"{where}: a table is a list of numbers or the path of a file of them: {given!r}."
        )
    count = len(given)
    if count < 2 or count & (count - 1) or count > 2**MAX_BITS:
        raise ValueError(
            f"{where}: a table gives one value to each code, so it has 2^bits values with bits from "
            f"1 to {MAX_BITS}, but this one has {count}. Repeat a value to fill unused codes."
        )
    values = tuple(_entry(value, code, where) for code, value in enumerate(given))
    finite = {v for v in values if not isinstance(v, str)}
    if len(finite) < 2 or max(finite) <= 0:
        raise ValueError(
            f"{where}: a table needs at least two different finite values, one of them positive, "
            f"but its finite values are {sorted(finite)[:8]}."
        )
    return values


def _from_file(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"{path}: the table of values cannot be read: {error.strerror}."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the table of values cannot be read: {error}.") from error
    if path.suffix.lower() == ".json":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: this is not JSON: {error}.") from error
    lines = (line.split("#", 1)[0].replace(",", " ") for line in text.splitlines())
    return [word for line in lines for word in line.split()]


def _entry(value: Any, code: int, where: str) -> TableEntry:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{where}: the value of code {code} is {value!r}, which is not a number.")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{where}: the value of code {code} is {value!r}; it must be a float32 number, 'nan', "
            "'inf' or '-inf'."
        ) from None
    if math.isnan(number):
        return "nan"
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return _float32(number, code, where)


def _float32(number: float, code: int, where: str) -> float:
    try:
        (nearest,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        raise ValueError(
            f"{where}: the value of code {code}, {number!r}, is beyond the range of float32."
        ) from None
    if nearest != number:
        raise ValueError(
            f"{where}: the value of code {code}, {number!r}, is not a float32 value, and values "
            f"are never changed in silence; the nearest is {nearest!r}."
        )
    return number
