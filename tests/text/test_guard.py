from __future__ import annotations

import pytest

from mmfusion.narrative import LeakGuard

GUARD = LeakGuard(
    ["mel", "nv", "basal_cell_carcinoma", "keratosis", "0", "4"],
    {"mel": ["melanoma", "恶性黑色素瘤"], "nv": ["nevus", "naevus"], "4": ["grade IV"], "bowen": ["Bowen's disease"]},
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Melody of melons, nvidia, keratotic", []),
        ("A MELANOMA, Melanomas and melanomata: mel.", ["MELANOMA", "Melanomas", "melanomata", "mel"]),
        ("non-melanoma, melanoma-like", ["melanoma", "melanoma"]),
        ("the melanoma's edge", ["melanoma's"]),
        ("Basal-Cell  Carcinomas and basal cell carcinoma", ["Basal-Cell  Carcinomas", "basal cell carcinoma"]),
        (
            "basal\u2010cell\u2013carcinoma, basalcellcarcinoma",
            ["basal\u2010cell\u2013carcinoma", "basalcellcarcinoma"],
        ),
        ("basal cells", []),
        (
            "Two nevi; a nævus, a névus, \uff4e\uff45\uff56\uff55\uff53, ne\u00advus",
            ["nevi", "nævus", "névus", "\uff4e\uff45\uff56\uff55\uff53", "ne\u00advus"],
        ),
        ("keratosis, keratoses", ["keratosis", "keratoses"]),
        ("dx_mel=1", ["mel"]),
        ("Bowen\u2019s disease", ["Bowen\u2019s disease"]),
        ("诊断为恶性黑色素瘤的病人, MEL阳性", ["恶性黑色素瘤", "MEL"]),
        ("4 mm, aged 0, grade-IV", ["grade-IV"]),
        ("", []),
    ],
)
def test_find(text: str, found: list[str]) -> None:
    assert GUARD.find(text) == found


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A melanoma of the back.", "A of the back."),
        ("Lesion, melanoma, on the back", "Lesion, on the back"),
        ("Seen before (nevus). Grows.", "Seen before. Grows."),
        ("melanoma", ""),
        ("nothing to see, 4 mm", "nothing to see, 4 mm"),
        ("basal basal cell carcinoma cell carcinoma", ""),
    ],
)
def test_clean_words(text: str, cleaned: str) -> None:
    assert GUARD.clean(text) == cleaned
    GUARD.check(GUARD.clean(text))


def test_clean_sentences() -> None:
    text = "The back is broad. Melanoma is seen there, e.g. in men. It gets sun! 是黑色素。恶性黑色素瘤多见。晒太阳。"
    assert GUARD.clean(text, unit="sentence") == "The back is broad. It gets sun! 是黑色素。 晒太阳。"
    with pytest.raises(ValueError, match="unit='line'"):
        GUARD.clean("x", unit="line")  # type: ignore[arg-type]


def test_check_names_the_words() -> None:
    GUARD.check("A spot on the back.")
    with pytest.raises(ValueError, match=r"'Nevi', 'mel'.*clean"):
        GUARD.check("Nevi and mel of the back")


def test_columns() -> None:
    guard = LeakGuard(["a"], columns=["Biopsy Result"])
    assert guard.leaking(["age", "DX-Type", "Label", "biopsy_result", "dx"]) == [
        "DX-Type",
        "Label",
        "biopsy_result",
        "dx",
    ]
    guard.check_columns(["age", "sex"])
    with pytest.raises(ValueError, match="'dx_type' reveals the label"):
        guard.check_columns(["age", "dx_type"])


def test_arguments() -> None:
    assert GUARD.numbers == ["0", "4"]
    assert LeakGuard(["mel"], ["melanoma"]).find("Melanoma") == ["Melanoma"]
    assert LeakGuard().find("anything") == [] and LeakGuard([""]).clean("a  b") == "a  b"
    with pytest.raises(TypeError, match="lists of labels"):
        LeakGuard("mel")
    with pytest.raises(TypeError, match="synonyms of 'mel'"):
        LeakGuard(["mel"], {"mel": "melanoma"})
