"""Data: case tables, the processor that turns cases into tensors, splits, samplers and a synthetic data set."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.data.cases import CaseTable as CaseTable
    from mmfusion.data.config import DatasetConfig as DatasetConfig
    from mmfusion.data.dataset import MultimodalDataset as MultimodalDataset
    from mmfusion.data.demo_data import make_demo as make_demo
    from mmfusion.data.image_checks import check_images as check_images
    from mmfusion.data.problems import Problem as Problem, ProblemKind as ProblemKind
    from mmfusion.data.processor import Processor as Processor
    from mmfusion.data.read import read_cases as read_cases
    from mmfusion.data.samplers import balanced_sampler as balanced_sampler
    from mmfusion.data.splits import group_folds as group_folds, group_split as group_split
    from mmfusion.images.opening import open_image as open_image
    from mmfusion.images.slices import neighbour_slices as neighbour_slices
    from mmfusion.text.template import render as render
    from mmfusion.text.tokenizer import fit_wordpiece as fit_wordpiece, load_tokenizer as load_tokenizer

__getattr__, __dir__ = attach(__name__)
