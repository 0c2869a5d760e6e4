"""Guard against label leaks in texts: label words, their synonyms, and leaking metadata columns."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from mmfusion.files import read_json
from mmfusion.names import check_choice
from mmfusion.text.words import UNSPACED, fold, sentences

_LABEL_WORDS = Path(__file__).parent / "label_words"

#: metadata columns of common data sets that contain the label, or how it was determined.
LEAKING_COLUMNS = (
    *("label", "class", "target", "dx", "dx_type", "diagnosis", "diagnosis_confirm_type"),
    *("benign_malignant", "histology", "pathology"),
    *("upper_endplate", "lower_endplate", "any_endplate"),
)

#: optional separators between the words of a term: spaces, hyphens of every kind, apostrophes, _ and /.
_JOINT = r"[\s_/'\u2019\-\u2010-\u2015]*"


class LeakGuard:
    """Finds whole words that reveal the label, and removes or refuses them.

    A term is found in any case, with or without accents, in another width, with invisible characters inside, in
    singular and plural (English and Latin: nevus, nevi; keratosis, keratoses; melanoma, melanomas, melanomata), with a
    possessive, and with its words joined by spaces, hyphens, underscores, slashes or nothing
    (``basal-cell carcinoma``). Parts of longer words do not match: ``mel`` is not found in ``melody``. In scripts
    without spaces between words a term is found anywhere.

    Labels that are only numbers (``0``, ``4``) are not searched for, because ages and sizes are numbers, too. Add
    synonyms for them (``{"4": ["grade 4", "grade IV"]}``).

    Args:
        labels: Class names.
        synonyms: Label -> further terms, or a list of further terms.
        columns: Leaking metadata columns, in addition to :data:`LEAKING_COLUMNS`.

    Attributes:
        terms: All search terms, as given.
        numbers: Labels that are only numbers, which are not searched for.
    """

    def __init__(
        self,
        labels: Iterable[str] = (),
        synonyms: Mapping[str, Sequence[str]] | Iterable[str] = (),
        *,
        columns: Iterable[str] = (),
    ) -> None:
        if isinstance(labels, str) or isinstance(synonyms, str):
            raise TypeError("LeakGuard takes lists of labels and synonyms, not a single text.")
        labels = [str(label) for label in labels]
        self.numbers = [label for label in labels if _is_number(label)]
        if isinstance(synonyms, Mapping):
            for label, terms in synonyms.items():
                if isinstance(terms, str) or not isinstance(terms, Sequence):
                    raise TypeError(f"The synonyms of {label!r} are a list of texts, not {terms!r}.")
            labels += [label for label in synonyms if not _is_number(label)]
            synonyms = [term for terms in synonyms.values() for term in terms]
        given = dict.fromkeys(str(term) for term in [*labels, *synonyms] if str(term) not in self.numbers)
        self.terms = [term for term in given if _parts(term)]
        self.columns = frozenset(_column_key(name) for name in [*LEAKING_COLUMNS, *columns])
        # The longest first, so that "basal cell carcinoma" is removed as a whole even if "carcinoma" is a term, too.
        patterns = sorted(map(_pattern, self.terms), key=len, reverse=True)
        self._regex = re.compile("|".join(patterns)) if patterns else None

    def find(self, text: str) -> list[str]:
        """The words of a text that reveal a label, as written there."""
        return [text[start:end] for start, end in self._spans(text)]

    def check(self, text: str) -> None:
        """Check that a text has no label word.

        Raises:
            ValueError: The text has a label word; the message names it.
        """
        if found := self.find(text):
            names = ", ".join(map(repr, dict.fromkeys(found)))
            start = max(0, text.index(found[0]) - 30)
            raise ValueError(
                f"The text reveals the label by {names}: '...{text[start : start + 80].strip()}...'; "
                "take those words out, or let LeakGuard.clean do it."
            )

    def clean(self, text: str, *, unit: Literal["word", "sentence"] = "word") -> str:
        """The text without label words.

        Args:
            text: Any text.
            unit: ``word`` removes the words and tidies spaces and punctuation; ``sentence`` removes whole sentences,
                because a passage without its subject would still describe it.

        Raises:
            ValueError: Unknown unit.
        """
        check_choice("unit", unit, ("word", "sentence"))
        if unit == "sentence" and self._spans(text):
            return " ".join(sentence for sentence in sentences(text) if not self._spans(sentence))
        # Removing a term may join the words around it to another term.
        while spans := self._spans(text):
            starts, ends = zip(*spans, strict=True)
            kept = zip((0, *ends), (*starts, len(text)), strict=True)
            text = _tidy(" ".join(text[start:end] for start, end in kept))
        return text

    def leaking(self, columns: Iterable[str]) -> list[str]:
        """Those of the columns that must not enter a text, in their order."""
        return [name for name in columns if _column_key(name) in self.columns]

    def check_columns(self, columns: Iterable[str]) -> None:
        """Check that no column reveals the label.

        Raises:
            ValueError: A leaking column; the message names it.
        """
        if found := self.leaking(columns):
            names = ", ".join(map(repr, found))
            raise ValueError(f"The column {names} reveals the label; leave it out of the template.")

    def _spans(self, text: str) -> list[tuple[int, int]]:
        if self._regex is None:
            return []
        folded, origins = fold(text)
        return [(origins[match.start()], origins[match.end()]) for match in self._regex.finditer(folded)]


def list_synonyms() -> list[str]:
    """Fields of medicine whose label words are shipped."""
    return sorted(path.stem for path in _LABEL_WORDS.glob("*.json"))


def read_synonyms(source: str | Path) -> dict[str, list[str]]:
    """Read a mapping from labels to terms that reveal them.

    Args:
        source: A JSON file, or a field with shipped words (:func:`list_synonyms`).

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is not a JSON object of lists of texts.
    """
    path = _LABEL_WORDS / f"{source}.json" if source in list_synonyms() else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"The synonyms {path} do not exist.")
    found = read_json(path)
    if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in found.values()):
        raise ValueError(f'{path} must map labels to lists of texts, as in {{"mel": ["melanoma"]}}.')
    return found


def _is_number(label: str) -> bool:
    return re.fullmatch(r"[\W_]*\d+([.,]\d+)?[\W_]*", label) is not None


def _column_key(name: str) -> str:
    return re.sub(r"[\W_]+", "_", fold(name)[0].strip())


def _parts(term: str) -> list[str]:
    return re.findall(r"[^\W_]+", fold(term)[0])


def _pattern(term: str) -> str:
    """Regular expression for a term in a folded text."""
    parts = _parts(term)
    body = _JOINT.join(f"(?:{'|'.join(map(re.escape, _forms(part)))})" for part in parts)
    # A boundary is where no further letter or digit follows; each letter of unspaced scripts is its own word.
    before = "" if re.match(f"[{UNSPACED}]", parts[0]) else rf"(?<![^\W_{UNSPACED}])"
    after = "" if re.search(f"[{UNSPACED}]$", parts[-1]) else rf"(?:['\u2019]s)?(?![^\W_{UNSPACED}])"
    return f"{before}{body}{after}"


#: singular ending, plural ending: English, then Latin and Greek.
_PLURALS = (("y", "ies"), ("us", "i"), ("is", "es"), ("um", "a"), ("oma", "omata"), ("a", "ae"))


def _forms(word: str) -> list[str]:
    """A word in singular and plural, the longest first. Some forms are not words, which does no harm."""
    forms = {word, f"{word}s"}
    if len(word) > 3:
        forms.add(f"{word}es")
        for one, many in _PLURALS:
            if word.endswith(one):
                forms.add(word.removesuffix(one) + many)
            if word.endswith(many) and len(word) > len(many) + 2:
                forms.add(word.removesuffix(many) + one)
        if word.endswith("s") and not word.endswith(("ss", "us", "is")):
            forms.add(word[:-1])
    return sorted(forms, key=lambda form: (-len(form), form))


def _tidy(text: str) -> str:
    """Clean up spaces and punctuation after words were removed."""
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r"[(\[{]\s*[)\]}]", "", text)
    text = re.sub(r"(?:(?<=\s)|^)['\-\u2010-\u2015/]+(?=\s|[.,;:!?]|$)", "", text)
    text = re.sub(r"(?:(?<=\s)|^)[\-\u2010-\u2015/]+(?=\w)|(?<=\w)[\-\u2010-\u2015/]+(?=\s|$)", "", text)
    text = re.sub(r"\s+([.,;:!?)\]])", r"\1", text)
    text = re.sub(r"([(\[])\s+", r"\1", text)
    text = re.sub(r"[,;:]+([.!?])", r"\1", text)
    text = re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", text)
    text = re.sub(r"^[\s.,;:!?]+", "", text)
    return re.sub(r"[ \t]+", " ", text).strip()
