"""Options of public data sets as downloaded. Imports no heavy library."""

from typing import Any

_TEMPLATE = "{age}-year-old {sex}, lesion on the {localization}"

#: Name of a layout -> options of :class:`~mmfusion.data.config.DatasetConfig`.
PRESETS: dict[str, dict[str, Any]] = {
    # one folder, as in the examples
    "ham10000": {
        "table": "metadata.csv",
        "image_root": "images",
        "text_template": _TEMPLATE,
        "group_column": "lesion_id",
    },
    # Kaggle, kmader/skin-cancer-mnist-ham10000; both folders are listed, since the download has copies of them
    "ham10000_kaggle": {
        "table": "HAM10000_metadata.csv",
        "image_root": ["HAM10000_images_part_1", "HAM10000_images_part_2"],
        "label_column": "dx",
        "text_template": _TEMPLATE,
        "group_column": "lesion_id",
    },
    # challenge.isic-archive.com, task 3 of 2018: images and ground truth
    "isic2018": {
        "table": "ISIC2018_Task3_Training_GroundTruth.csv",
        "image_root": "ISIC2018_Task3_Training_Input",
        "label_columns": ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"],
    },
    # challenge.isic-archive.com, 2019: images, ground truth and metadata
    "isic2019": {
        "table": "ISIC_2019_Training_GroundTruth.csv",
        "image_root": "ISIC_2019_Training_Input",
        "label_columns": ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"],
        "labels_table": "ISIC_2019_Training_Metadata.csv",
        "join_on": "image",
        "text_template": "{age_approx}-year-old {sex}, lesion on the {anatom_site_general}",
        "group_column": "lesion_id",
    },
    # SPIDER, lumbar spine slices as in the examples
    "spider_modic_multiview": {
        "table": "series.csv",
        "image_root": "midsagittal",
        "labels_table": "patients.csv",
        "join_on": "patient_id",
        "label_column": "any_modic",
        "study_column": "patient_id",
        "view_column": "sequence",
        "views": ["t1", "t2"],
        "fold_column": "fold",
        "folds": {"test": [0], "val": [1]},
        "text_template": "{age}-year-old, sex {sex}",
    },
    "spider_modic_sequence": {
        "table": "t2space_slices.csv",
        "image_root": "t2space_slices",
        "labels_table": "patients.csv",
        "join_on": "patient_id",
        "label_column": "any_modic",
        "study_column": "patient_id",
        "slice_column": "slice_index",
        "max_slices": 16,
        "fold_column": "fold",
        "folds": {"test": [0], "val": [1]},
        "text_template": "{age}-year-old, sex {sex}",
    },
    "spider_pfirrmann_25d": {
        "table": "t2space_slices.csv",
        "image_root": "t2space_slices",
        "labels_table": "patients.csv",
        "join_on": "patient_id",
        "label_column": "severity",
        "study_column": "patient_id",
        "slice_column": "slice_index",
        "max_slices": 9,
        "fold_column": "fold",
        "folds": {"test": [0], "val": [1]},
        "text_template": "{age}-year-old, sex {sex}",
    },
}

#: Table of a public data set -> a table published with it, and its columns of the image and the lesion.
LESIONS = {
    "ISIC2018_Task3_Training_GroundTruth.csv": ("ISIC2018_Task3_Training_LesionGroupings.csv", "image", "lesion_id")
}


def preset_of(files: set[str]) -> str | None:
    """The layout whose table is among the file names; None if there is none or the name is too common."""
    return next((name for name, options in PRESETS.items() if options["table"] in files - {"metadata.csv"}), None)
