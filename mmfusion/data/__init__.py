"""Data: tables of cases, the processor that makes tensors of them, splits, samplers and a synthetic data set.

Names are resolved on first use, so that importing this package loads no heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {
    "DatasetConfig": "config",
    "CaseTable": "cases",
    "Problem": "problems",
    "ProblemKind": "problems",
    "read_cases": "read",
    "check_images": "image_checks",
    "open_image": "images",
    "render": ".text.template",
    "fit_wordpiece": ".text.tokenizer",
    "load_tokenizer": ".text.tokenizer",
    "Processor": "processor",
    "MultimodalDataset": "dataset",
    "group_split": "splits",
    "group_folds": "splits",
    "balanced_sampler": "samplers",
    "neighbour_slices": "slices",
    "make_demo": "demo_data",
}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.data.cases import CaseTable as CaseTable
    from mmfusion.data.config import DatasetConfig as DatasetConfig
    from mmfusion.data.dataset import MultimodalDataset as MultimodalDataset
    from mmfusion.data.demo_data import make_demo as make_demo
    from mmfusion.data.image_checks import check_images as check_images
    from mmfusion.data.images import open_image as open_image
    from mmfusion.data.problems import Problem as Problem
    from mmfusion.data.problems import ProblemKind as ProblemKind
    from mmfusion.data.processor import Processor as Processor
    from mmfusion.data.read import read_cases as read_cases
    from mmfusion.data.samplers import balanced_sampler as balanced_sampler
    from mmfusion.data.slices import neighbour_slices as neighbour_slices
    from mmfusion.data.splits import group_folds as group_folds
    from mmfusion.data.splits import group_split as group_split
    from mmfusion.text.template import render as render
    from mmfusion.text.tokenizer import fit_wordpiece as fit_wordpiece
    from mmfusion.text.tokenizer import load_tokenizer as load_tokenizer

__getattr__, __dir__ = exports(__name__, _MODULES)
