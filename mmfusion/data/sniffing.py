"""Detects the encoding and delimiter of text files with tables."""

import codecs
import csv
from pathlib import Path

_CHUNK = 1 << 20
#: Maximum number of characters per cell; the csv module's limit of 131,072 is exceeded by long texts.
LONGEST_CELL = 1 << 24
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def encoding_of(path: Path) -> str:
    """Encoding of a text file: from its byte order mark, else UTF-8 if all of it is valid, else cp1252."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        start = file.read(_CHUNK)
        marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
        if marked is not None:
            return marked
        try:
            while start:
                decoder.decode(start)
                start = file.read(_CHUNK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            # the five bytes undefined in cp1252 are not letters in either
            content = path.read_bytes()
            return "latin-1" if any(byte in content for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)) else "cp1252"
    return "utf-8"


def sniff(path: Path) -> tuple[str, str, list[str]]:
    """Encoding and delimiter of a delimited file, and a log line for each that differs from what its name implies.

    The delimiter follows the suffix, unless the header has none of it but another one.
    """
    encoding, usual = encoding_of(path), "\t" if path.suffix.lower() == ".tsv" else ","
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    with path.open(encoding=encoding, newline="") as file:
        header = file.readline()
    cells = {each: len(next(csv.reader([header], delimiter=each), [])) for each in _SEPARATORS}
    most = max(cells, key=lambda each: cells[each])
    delimiter = usual if cells[usual] > 1 or cells[most] == 1 else most
    notes = []
    if encoding not in ("utf-8", "utf-8-sig"):
        notes.append(f"{path.name} is not UTF-8; read as {encoding}")
    if delimiter != usual:
        notes.append(f"{path.name} is separated by {_SEPARATORS[delimiter]}, judging by its header")
    return encoding, delimiter, notes
