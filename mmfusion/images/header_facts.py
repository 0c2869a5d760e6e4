"""DICOM header fields that can become columns. Imports no heavy library."""

from collections.abc import Mapping
from typing import Any

from mmfusion.names import did_you_mean

#: DICOM keywords that describe a patient or scan without identifying them.
FACTS = (
    *("PatientAge", "PatientSex", "PatientSize", "PatientWeight", "PregnancyStatus", "SmokingStatus"),
    *("BodyPartExamined", "Laterality", "ImageLaterality", "ViewPosition", "PatientPosition", "Modality"),
    *("Manufacturer", "ManufacturerModelName", "MagneticFieldStrength", "KVP", "SliceThickness"),
    *("RepetitionTime", "EchoTime", "ScanningSequence", "ContrastBolusAgent", "ConvolutionKernel"),
)
_SEXES = {"M": "male", "F": "female", "O": "other"}
#: Length in years of the unit of an age such as 055Y.
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def check_facts(columns: Mapping[str, str]) -> None:
    """Raise ValueError for unknown header fields and those that may identify a patient."""
    for name, fact in columns.items():
        if fact not in FACTS:
            known = did_you_mean(fact, list(FACTS))
            raise ValueError(
                f"dataset.header_columns: {name} cannot be {fact!r}, which may identify a patient; {known}"
            )


def fact_text(fact: str, value: Any) -> str | None:
    """A header field as a cell: ages in years (``055Y`` is 55), sexes and body parts in words; None if empty."""
    text = str(value).strip() if value is not None else ""
    if fact == "PatientAge" and text[:-1].isdigit() and text[-1] in _YEARS:
        return f"{int(text[:-1]) * _YEARS[text[-1]]:.3g}"
    if fact == "PatientSex":
        return _SEXES.get(text.upper()) or text.lower() or None
    return (text.lower() if fact in ("BodyPartExamined", "Laterality", "ImageLaterality") else text) or None
