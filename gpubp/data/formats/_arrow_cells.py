"""The cells of a plain block of lines, read by Arrow's CSV reader exactly as NumPy's would read them.

Where the two would differ, or anything is wrong, the answer is None and NumPy's reader takes the block. What is known
to differ: Arrow takes 0x1F for an integer and not +1; it takes nan(x) for a number; it joins the parts of "5"6, and
lines where a quotation mark has no pair; it knows no comments.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._blocks import Block, lines_in
from ._cells import MISSING, Cells, Kinds, Layout, is_missing, is_number

_NULLS = sorted({form(word) for word in MISSING for form in (str, str.upper, str.capitalize)} | {"NaN", "-NaN"})
_COMPLAINT = re.compile(r"CSV column #(\d+): .*invalid value '(.*)'", re.DOTALL)


def there() -> bool:
    """Whether pyarrow can be imported."""
    try:
        import pyarrow.csv
    except ImportError:
        return False
    return bool(pyarrow.csv)


def read_plain(block: Block, layout: Layout, kinds: Kinds) -> Cells | None:
    """As `read_cells`; None where NumPy's reader has to look at the block."""
    import pyarrow as pa

    text = _plain(block.text, layout)
    if text is None:
        return None
    role_of = {column: role for role, columns in layout.roles.items() for column in columns}
    while True:
        try:
            table = _table(text, layout, kinds)
            if b'"' in text and table.num_rows != lines_in(text) + (text[-1:] not in b"\r\n"):
                return None  # a quotation mark without its pair has joined two lines, or there are blank ones
            return _cells(table, layout, kinds)
        except _Wider as wider:
            kinds = kinds.wider(wider.role, wider.kind)
        except pa.ArrowInvalid as error:
            found = _COMPLAINT.search(str(error))
            role = role_of.get(int(found[1])) if found else None
            if found is None or role is None:
                return None
            kind, cell = kinds.of(role), found[2]
            if is_missing(cell) or (kind == "int" and re.fullmatch(r"\s*[+-]?\d{1,19}\s*", cell)):
                return None
            if kind == "int" and is_number(cell):
                kinds = kinds.wider(role, "float")
            elif role == "y" and kind != "text" and not is_number(cell):
                kinds = kinds.wider(role, "text")
            else:
                return None


class _Wider(Exception):
    def __init__(self, role: str, kind: str) -> None:
        super().__init__(role, kind)
        self.role, self.kind = role, kind


def _plain(text: bytes, layout: Layout) -> bytes | None:
    """The text without comments and with one sign between cells, if nothing in it is read in two ways."""
    if b"\0" in text or b"0x" in text or b"0X" in text:
        return None
    if text.startswith(b"#") or b"\n#" in text or b"\r#" in text:
        text = re.sub(rb"(?m)^#[^\r\n]*\n", b"", text)
        if text.startswith(b"#") or b"\n#" in text or b"\r#" in text:
            return None
    if layout.missing and layout.delimiter == "\t" and re.search(rb"(?m)^[ \t]+\r?$", text):
        return None  # a blank line is none of missing values
    quotes = b'"' in text
    if quotes and not _quotes_are_plain(text, layout.delimiter):
        return None
    if layout.delimiter is None:
        if quotes or not text.isascii() or re.search(rb"[\x0b\x0c\x1c-\x1f]", text):
            return None
        text = text.replace(b"\t", b" ").replace(b"\r", b"\n")
        while b"  " in text:
            text = text.replace(b"  ", b" ")
        text = text.replace(b"\n ", b"\n").replace(b" \n", b"\n").strip(b" ")
    return text if text.strip() else None


def _quotes_are_plain(text: bytes, delimiter: str | None) -> bool:
    """Whether each quotation mark begins or ends a whole cell, which all readers understand alike."""
    if delimiter is None:
        return False
    signs = np.frombuffer(text, np.uint8)
    at = np.flatnonzero(signs == ord('"'))
    if len(at) % 2:
        return False
    borders = np.zeros(256, bool)
    borders[[ord(delimiter), 10, 13]] = True
    before, after = at[::2] - 1, at[1::2] + 1
    return bool(borders[signs[before[before >= 0]]].all() and borders[signs[after[after < len(signs)]]].all())


def _table(text: bytes, layout: Layout, kinds: Kinds) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    arrow = {"int": pa.int64(), "float": pa.float64(), "text": pa.dictionary(pa.int32(), pa.string())}
    types = {str(column): arrow[kinds.of(role)] for role, columns in layout.roles.items() for column in columns}
    return csv.read_csv(
        pa.py_buffer(text),
        csv.ReadOptions(
            use_threads=False, block_size=len(text) + 1, column_names=[str(column) for column in range(layout.width)]
        ),
        csv.ParseOptions(delimiter=layout.delimiter or " ", newlines_in_values=False),
        csv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            null_values=_NULLS if layout.missing else [],
            strings_can_be_null=False,
        ),
        memory_pool=pa.system_memory_pool(),
    )


def _cells(table: Any, layout: Layout, kinds: Kinds) -> Cells | None:
    arrays = {}
    for role, columns in layout.roles.items():
        found = [table.column(str(column)).combine_chunks() for column in columns]
        if role == "x":
            arrays[role] = _features(found, kinds.x)
        elif found[0].null_count:
            return None
        elif kinds.of(role) == "text":
            words = np.char.strip(np.array(found[0].dictionary.to_pylist()))
            if np.isin(np.char.lower(words), sorted(MISSING)).any():
                return None
            arrays[role] = words[found[0].indices.to_numpy()]
        else:
            arrays[role] = found[0].to_numpy(zero_copy_only=False)
            if kinds.of(role) == "float" and np.isnan(arrays[role]).any():
                return None
    if any(array is None for array in arrays.values()):
        return None
    return Cells(kinds, **arrays)


def _features(found: list[Any], kind: str) -> NDArray[Any] | None:
    """One array (rows, columns) of the columns; None where a value is missing that must not be, or oddly written."""
    nulls = any(column.null_count for column in found)
    if nulls and kind == "int":
        raise _Wider("x", "float")
    arrays = [column.to_numpy(zero_copy_only=False) for column in found]
    if kind == "int":
        low, high = min(int(array.min()) for array in arrays), max(int(array.max()) for array in arrays)
        dtype = np.int16 if -(2**15) <= low and high < 2**15 else np.int64
    else:
        dtype = np.float64
    out = np.empty((len(arrays[0]), len(arrays)), dtype)
    for column, array in enumerate(arrays):
        out[:, column] = array
    if kind == "float":
        with np.errstate(invalid="ignore"):
            if np.isnan(out.sum()) and np.count_nonzero(np.isnan(out)) != sum(column.null_count for column in found):
                return None
    return out
