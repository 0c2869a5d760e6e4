"""Kolmogorov-Arnold layers whose univariate function is shared by a group of channels.

Every basis except the radial one is evaluated once per input element, in blocks of rows that fit into the processor's
cache, with a custom backward that stores at most the input and the slope, so that a layer costs little more than a
Linear.
"""

from mmfusion.layers.kan.linear import Basis, GroupKANLinear
from mmfusion.layers.kan.splines import bspline_basis

__all__ = ["Basis", "GroupKANLinear", "bspline_basis"]
