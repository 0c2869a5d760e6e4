"""Searches the texts of a saved model for personal data and machine data before it is shared.

Patterns find dates, paths and keys, but not every name. ``privacy.min_patients`` keeps rare values out of vocabularies.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmfusion.artifacts.names import CARD, CONFIG, FILES, METRICS, READ
from mmfusion.untrusted import MOST_JSON, is_outside, read_foreign_json

#: Common given names that are not medical terms; a vocabulary should contain none, and a text none before a capitalized
#: word (:data:`GIVEN`).
_NAMES = """
aisha alejandro alexander alice amelia andrea andreas andrew angela anita anna anne antonio barbara beatriz benjamin
bernard brenda brian carla carlos carmen carol catherine charles charlotte chiara christine christopher claudia
daniel daniela david deborah dennis diana dmitri donald dorothy edward elena elizabeth emily emma eric esther fatima
fernando francesca francisco friedrich gabriel george gerhard giovanni giulia giuseppe gregory hannah hans heinrich
helen helga henry hiroshi ibrahim igor ingrid isabel ivan jacob james janet jason jennifer jessica johann johannes
john jonathan jorge joseph joshua juan judith julia karen karl katarina kathleen kenneth kevin khalid klaus larissa
laura leila linda lisa louise lucia ludwig luigi manuel marco margaret maria marie mario martha martin mary matteo
matthew melissa michael michelle miguel mohamed mohammed monica nancy natalia nicholas nicole nikolai olga olivia
omar pablo pamela patricia patrick paul pedro peter philip pierre pietro priya rachel ralph raymond rebecca ricardo
richard robert roberto roger ronald rosa ruth samuel sandra sarah sergei sharon sofia sophie stefan stephanie
stephen steven susan svetlana sylvia tatiana teresa theresa thomas timothy tobias ursula vanessa victoria vincent
vladimir walter werner wilhelm william wolfgang yuki yusuf zhang
"""
GIVEN = frozenset(_NAMES.split())

_TITLES = "Mr|Mrs|Ms|Dr|Prof|Herr|Herrn|Frau|Mme|Mlle|Monsieur|Madame|Señora?|Signora?"
_FOLDERS = "home|Users|mnt|media|data|srv|root|tmp|var|opt|scratch|work|Volumes|private|etc|usr|gpfs|lustre"
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"

#: Kind -> pattern.
FORMS: Mapping[str, re.Pattern[str]] = {
    "a key": re.compile(
        r"\bhf_\w{20,}|\bsk-[\w-]{20,}|\bgh[pousr]_\w{30,}|\bAKIA[0-9A-Z]{16}\b|\beyJ[\w-]{10,}\.eyJ|PRIVATE KEY-----"
        r"|(?i:\b(?:password|passwd|secret|api[_-]?key))\s*[:=]\s*\S+"
    ),
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b"),
    "a path": re.compile(rf"(?<![\w.])/(?:{_FOLDERS})/[\w.-]+|\b[A-Za-z]:\\\w|\\\\\w+\\\w+|(?<!\w)~/\w+|\bfile://"),
    "a date": re.compile(
        r"\b(?:19|20)\d\d-[01]\d-[0-3]\d|\b[0-3]?\d\.[01]?\d\.(?:19|20)\d\d\b|\b[0-3]?\d/[0-3]?\d/(?:19|20)?\d\d\b"
        rf"|\b(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])\b"
        rf"|\b[0-3]?\d\.? (?:{_MONTHS})[a-zé]* (?:19|20)\d\d\b|\b(?:{_MONTHS})[a-z]* [0-3]?\d, (?:19|20)\d\d\b"
    ),
    "an id": re.compile(
        r"\b\d(?:\.\d+){5,}\b|\b[A-Za-z]{1,12}[_-]?\d{6,}\b|(?<![\w.,])\d{6,}(?![\w.,]*\w)|\+\d[\d ()/-]{7,}\d"
        r"|(?i:\b(?:patient|pat|mrn|case|subject|person|accession)[ _:#-]*\d{2,}\b)"
    ),
    "a name": re.compile(
        rf"\b(?:{_TITLES})\b\.? +[A-ZÀ-Þ][\w'-]+"
        rf"|\b(?:{'|'.join(name.title() for name in sorted(GIVEN))}) [A-ZÀ-Þ][a-zà-þ]+"
    ),
}
_HASH = re.compile(r"[0-9a-f]{12,}")
#: Names of columns that identify a person.
_COLUMN = re.compile(
    r"(?i)^(?:(?:patient|first|last|given|family|full|sur|birth)[ _-]?name|surname|ssn|mrn|dob|birth[ _-]?date"
    r"|date[ _-]?of[ _-]?birth|e?-?mail|phone|telephone|(?:street[ _-]?)?address|passport"
    r"|insurance[ _-]?(?:id|number))$"
)
#: Entries with version numbers and hashes.
_PASSED = ("versions", "weights_sha256", "data_fingerprint", "sha256", "log_prior")


class Trace(NamedTuple):
    """A text that may be personal data.

    Attributes:
        kind: Kind of data.
        where: File and entry, or line.
        text: The text, truncated.
    """

    kind: str
    where: str
    text: str

    @property
    def place(self) -> str:
        """Kind and place without the text, for the card."""
        return f"{self.kind} in {self.where}"

    def __str__(self) -> str:
        return f"{self.place}: {self.text!r}"


def traces_in(folder: Path) -> list[Trace]:
    """Possible names, dates, ids, paths or keys in the texts of a saved model, file by file."""
    texts: dict[str, Any] = {}
    for name in (*READ, METRICS):
        if name.endswith(".json") and name != FILES and (folder / name).is_file():
            texts[name] = read_foreign_json(folder / name, 4 * MOST_JSON)
        elif name.endswith(".txt") and (folder / name).is_file():
            texts[name] = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
    card = folder / CARD
    if card.is_file():
        texts[CARD] = card.read_text(encoding="utf-8", errors="replace").splitlines()
    return traces_of(texts)


def traces_of(texts: Mapping[str, Any]) -> list[Trace]:
    """As :func:`traces_in`, given the files' contents by name."""
    found: list[Trace] = []
    for name, values in texts.items():
        if name == "tokenizer.json":
            found += _of_vocabulary(name, values, is_fitted="known_words" in (texts.get("tokenizer_config.json") or {}))
            continue
        found += (trace for where, text in _texts(values, name) for trace in _of_text(where, text))
    processor = (texts.get(CONFIG) or {}).get("processor") or {}
    return found + list(_of_columns(processor))


def told(traces: Sequence[Trace]) -> str:
    """The first traces in one line."""
    more = f" and {len(traces) - 8} more" if len(traces) > 8 else ""
    return f"{'; '.join(map(str, traces[:8]))}{more}"


def let_through(card: Mapping[str, Any] | None, traces: Iterable[Trace]) -> dict[str, Any]:
    """The entry ``card`` of ``config.json`` with accepted traces: kinds and places, not the texts."""
    places = list(dict.fromkeys(trace.place for trace in traces))
    return {**(card or {}), **({"let_through": places} if places else {})}


def refuse_traces(what: str, traces: Sequence[Trace], force: bool) -> None:
    """Raise ValueError if there are traces, unless forced.

    Args:
        what: The model, for the message.
        traces: The findings.
        force: Continue despite them.
    """
    if traces and not force:
        way = "remove it and save the model again, or continue with --force, which the card records"
        raise ValueError(f"{what} contains possible personal or machine data: {told(traces)}; {way}.")


def _texts(values: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every text of nested values, including keys, and its place."""
    if isinstance(values, str):
        yield where, values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            if key not in _PASSED:
                yield where, str(key)
                yield from _texts(value, f"{where}, {_name(str(key))}" if where.count(",") < 3 else where)
    elif isinstance(values, list):
        for value in values:
            yield from _texts(value, where)


def _name(key: str) -> str:
    """A key as part of a place, unless it is a trace itself."""
    return key if re.fullmatch(r"[A-Za-z_ ]{1,40}", key) else "..."


def _of_text(where: str, text: str) -> Iterator[Trace]:
    for kind, form in FORMS.items():
        for found in form.finditer(text):
            if not _HASH.fullmatch(found[0]):
                yield Trace(kind, where, found[0][:40])
    if is_outside(text) and not FORMS["a path"].search(text) and len(text) > 1 and " " not in text and "<" not in text:
        yield Trace("a path", where, text[:40])


def _of_vocabulary(name: str, values: Mapping[str, Any], is_fitted: bool) -> Iterator[Trace]:
    """Traces in a tokenizer fitted on training texts; published vocabularies are ignored."""
    vocabulary = (values.get("model") or {}).get("vocab") if isinstance(values.get("model"), Mapping) else None
    pieces = list(vocabulary) if isinstance(vocabulary, Mapping) else []
    for piece in pieces if is_fitted or len(pieces) < 8192 else ():
        word = piece.removeprefix("##")
        if len(word) > 3 and word.lower() in GIVEN:
            yield Trace("a name", f"the vocabulary of {name}", word)
        yield from _of_text(f"the vocabulary of {name}", word) if len(word) > 3 and not word.startswith("[") else ()


def _of_columns(processor: Mapping[str, Any]) -> Iterator[Trace]:
    table = processor.get("table") or {}
    columns = [column.get("name", "") for kind in ("numeric", "categorical") for column in table.get(kind) or []]
    columns += re.findall(r"\{([^{}:!]+)", processor.get("text_template") or "")
    for column in columns:
        if _COLUMN.match(str(column).strip()):
            yield Trace("a column of a person", f"{CONFIG}, processor", str(column)[:40])
