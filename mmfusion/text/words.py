"""Words and sentences of a text, in any script."""

import re
import unicodedata

#: characters of scripts without spaces between words (Thai, Chinese, Japanese), or with attached particles (Korean).
UNSPACED = "\u0e00-\u0e7f\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"

#: words too frequent to distinguish passages. (Longer lists contain "back", which is a part of the body.)
STOP_WORDS = {
    *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it"),
    *("no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they"),
    *("this", "to", "was", "will", "with"),
}

#: letters that Unicode does not decompose, although they are also written as two (nævus, naevus).
_LIGATURES = str.maketrans({"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d"})

_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")
_SENTENCE = re.compile(
    r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)(?<!approx\.)\s+|(?<=[\u3002\uff01\uff1f])\s*|\n+"
)


def fold(text: str) -> tuple[str, list[int]]:
    """Text without case, accents, width and invisible characters.

    Returns:
        The folded text, and the position in ``text`` of each of its characters, with ``len(text)`` at the end.
    """
    if text.isascii():
        return text.lower(), list(range(len(text) + 1))
    plain = (unicodedata.normalize("NFKD", character).casefold().translate(_LIGATURES) for character in text)
    parts = [(part, i) for i, letters in enumerate(plain) for part in unicodedata.normalize("NFKD", letters)]
    kept = [(part, i) for part, i in parts if unicodedata.category(part) not in ("Mn", "Cf")]
    return "".join(part for part, _ in kept), [*(i for _, i in kept), len(text)]


def words(text: str) -> list[str]:
    """Folded words without the stop words; each character by itself in scripts without spaces."""
    return [word for word in _WORD.findall(fold(text)[0]) if word not in STOP_WORDS]


def sentences(text: str) -> list[str]:
    """Sentences with their punctuation; line breaks end one as well."""
    return [sentence.strip() for sentence in _SENTENCE.split(text) if sentence.strip()]
