"""Tasks: the kind of prediction, from table cells to evaluation metrics."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.task import Task as Task, task_named as task_named
    from mmfusion.tasks.multiclass import Multiclass as Multiclass
    from mmfusion.tasks.multilabel import Multilabel as Multilabel
    from mmfusion.tasks.ordinal import Ordinal as Ordinal
    from mmfusion.tasks.regression import Regression as Regression

__getattr__, __dir__ = attach(__name__)
