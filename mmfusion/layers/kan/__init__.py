"""Kolmogorov-Arnold layers whose univariate function is shared by a group of channels (report eq. 3-4).

Every basis but the radial one is evaluated once per input element, in blocks of rows that stay in the processor's
cache, with a backward of its own that keeps at most the input and the slope: that is what makes such a layer cost
little more than a Linear.
"""

from mmfusion.layers.kan.linear import Basis, GroupKANLinear
from mmfusion.layers.kan.splines import bspline_basis

__all__ = ["Basis", "GroupKANLinear", "bspline_basis"]
