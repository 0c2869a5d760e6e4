"""How a text file with a table is written: its encoding, and what separates its cells."""

import codecs
import csv
from pathlib import Path

_CHUNK = 1 << 20
#: Characters of a cell at most; the limit of the csv module, of 131,072, is that of a long text.
LONGEST_CELL = 1 << 24
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def encoding_of(path: Path) -> str:
    """The encoding of a text file: as its mark says, else UTF-8 where all of it is that, else Windows' cp1252."""
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
            # the five bytes that cp1252 does not know are letters in no alphabet of either
            content = path.read_bytes()
            return "latin-1" if any(byte in content for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)) else "cp1252"
    return "utf-8"


def sniff(path: Path) -> tuple[str, str, list[str]]:
    """Encoding and delimiter of a file of separated cells, and a line about each that is not what its name says.

    The delimiter is what the suffix says, unless the header has none of it and another one.
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
        notes.append(f"{path.name} is not UTF-8, and is read as {encoding}")
    if delimiter != usual:
        notes.append(f"{path.name} is read as separated by {_SEPARATORS[delimiter]}, as its header is")
    return encoding, delimiter, notes
