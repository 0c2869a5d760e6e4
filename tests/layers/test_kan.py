"""KAN layers compared with scipy, autograd and numerical gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch.nn import functional as F
from torch.testing import assert_close

from mmfusion.layers import GroupKANLinear, bspline_basis
from mmfusion.layers.kan import group

BASES = ("bspline", "rational", "rbf", "chebyshev")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("spacing", ["uniform", "random", "clamped"])
def test_bspline_basis_is_scipys(degree, spacing):
    knots = np.arange(-3.0, 10.0) if spacing == "uniform" else np.sort(np.random.default_rng(0).normal(size=13))
    if spacing == "clamped":
        knots = np.concatenate([[knots[0]] * degree, knots, [knots[-1]] * degree])
    count = len(knots) - degree - 1
    low, high = knots[degree], knots[count]
    x = np.concatenate([np.linspace(low, high, 101), knots[(knots >= low) & (knots <= high)]])
    expected = BSpline(knots, np.eye(count), degree)(x)
    actual = bspline_basis(torch.from_numpy(x), torch.from_numpy(knots), degree)
    assert_close(actual, torch.from_numpy(expected), rtol=1e-10, atol=1e-12)
    assert_close(actual.sum(-1), torch.ones(len(x), dtype=torch.float64))


def test_bspline_basis_has_local_support_and_keeps_the_shape():
    knots = torch.arange(8.0)
    assert bspline_basis(torch.rand(2, 3, 4) * 7, knots, 3).shape == (2, 3, 4, 4)
    outside = bspline_basis(torch.tensor([-1.0, 7.5, 0.5]), knots, 3)
    assert outside[:2].abs().max() == 0 and (outside[2] > 0).tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="too few"):
        bspline_basis(torch.rand(2), knots[:4], 3)


def test_bspline_layer_is_scipys_spline_between_the_ends_and_its_tangent_beyond():
    layer = GroupKANLinear(6, 4, num_groups=3, grid_size=7, degree=3, grid_range=(-2, 3)).double()
    with torch.no_grad():
        layer.phi.coefficients.normal_()
    step = 5 / 7
    knots = -2 + step * np.arange(-3, 11)
    x = torch.linspace(-4, 5, 50, dtype=torch.float64)[:, None] + torch.rand(6, dtype=torch.float64)
    expected = torch.empty_like(x)
    for channel in range(6):
        spline = BSpline(knots, layer.phi.coefficients[channel // 2].detach().numpy(), 3)
        column = x[:, channel].numpy()
        inside = np.clip(column, -2, 3)
        expected[:, channel] = torch.from_numpy(spline(inside) + (column - inside) * spline(inside, nu=1))
    assert_close(layer.phi(x), expected, rtol=1e-12, atol=1e-12)
    assert_close(layer(x), expected @ layer.weight.T + layer.bias, rtol=1e-12, atol=1e-12)


def test_chebyshev_layer_is_numpys():
    layer = GroupKANLinear(4, 2, num_groups=2, basis="chebyshev", grid_size=3, degree=3, grid_range=(-1, 3))
    with torch.no_grad():
        layer.phi.coefficients.normal_()
    x = torch.linspace(-1, 3, 40)[:, None].expand(-1, 4)
    for channel in range(4):
        series = layer.phi.coefficients[channel // 2].detach().numpy()
        assert len(series) == 6
        expected = np.polynomial.chebyshev.chebval((x[:, channel].numpy() - 1) / 2, series)
        assert_close(layer.phi(x)[:, channel].detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_rational_layer_is_its_formula():
    layer = GroupKANLinear(6, 2, num_groups=2, basis="rational", degree=5, grid_range=(-2, 2))
    with torch.no_grad():
        layer.phi.numerator.normal_()
        layer.phi.denominator.normal_()
    x = torch.randn(30, 6) * 2
    for channel in range(6):
        p, a = (w[channel // 3].detach().double() for w in (layer.phi.numerator, layer.phi.denominator))
        t = x[:, channel].double() / 2
        top = sum(c * t**k for k, c in enumerate(p))
        bottom = 1 + abs(sum(c * t ** (k + 1) for k, c in enumerate(a)))
        assert_close(layer.phi(x)[:, channel].double(), top / bottom, rtol=1e-5, atol=1e-5)


def test_rbf_layer_is_its_formula():
    layer = GroupKANLinear(4, 2, num_groups=4, basis="rbf", grid_size=4, grid_range=(-2, 2))
    x = torch.randn(30, 4)
    w = layer.phi.coefficients
    expected = w[:, 0] + w[:, 1] * x
    for k, center in enumerate((-2, -1, 0, 1, 2)):
        expected = expected + w[:, 2 + k] * torch.exp(-((x - center) ** 2))
    assert_close(layer.phi(x), expected)


@pytest.mark.parametrize(
    ("basis", "error"), [("bspline", 0.02), ("rational", 0.03), ("rbf", 0.02), ("chebyshev", 0.05)]
)
def test_a_fresh_layer_is_a_linear_after_a_silu(basis, error):
    layer = GroupKANLinear(16, 5, basis=basis)
    x = torch.linspace(-4, 4, 200)[:, None].expand(-1, 16)
    assert (layer.phi(x) - F.silu(x)).abs().max() < error
    x = torch.randn(64, 16)
    assert_close(layer(x), F.linear(F.silu(x), layer.weight, layer.bias), rtol=0, atol=2 * error)
    assert isinstance(layer, torch.nn.Linear) and layer.weight.shape == (5, 16)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("degree", [2, 3])
def test_gradients_are_numerical_ones(basis, degree, monkeypatch):
    monkeypatch.setattr(group, "BLOCK", 12)  # several blocks, the last one shorter
    layer = GroupKANLinear(5, 3, num_groups=2, basis=basis, degree=degree).double()
    x = (torch.randn(5, 5, dtype=torch.float64) * 3).requires_grad_()
    parameters = dict(layer.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x, *parameters.values()))


@pytest.mark.parametrize("basis", BASES)
def test_the_own_backward_is_autograds(basis, monkeypatch):
    layer = GroupKANLinear(10, 3, num_groups=4, basis=basis, degree=4)
    inputs = [(torch.randn(7, 10) * 3).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    layer(inputs[0]).square().sum().backward()
    own = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    layer(inputs[1]).square().sum().backward()
    assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-5)
    for a, p in zip(own, layer.parameters(), strict=True):
        assert_close(a, p.grad, rtol=1e-4, atol=1e-4)
        assert p.grad.abs().sum() > 0


@pytest.mark.parametrize("basis", BASES)
def test_nothing_dies_beyond_the_grid(basis):
    layer = GroupKANLinear(4, 2, num_groups=2, basis=basis)
    x = torch.tensor([[9.0, -9, 30, -30], [1e3, -1e3, 6, -6]], requires_grad=True)
    y = layer.phi(x)
    y.sum().backward()
    assert y.isfinite().all() and (x.grad.abs() > 1e-6).all()
    assert all(p.grad.abs().sum() > 0 for p in layer.phi.parameters())
    broken = layer(torch.tensor([[float("nan"), 0, 0, 0], [0, 0, 0, 0]]))
    assert broken[0].isnan().all() and broken[1].isfinite().all()


@pytest.mark.parametrize("basis", BASES)
def test_shapes_precision_and_export(basis):
    layer = GroupKANLinear(12, 3, num_groups=5, basis=basis)
    x = torch.randn(2, 3, 12)
    y, expected_phi = layer(x), layer.phi(x)
    assert y.shape == (2, 3, 3)
    assert_close(layer(x.transpose(0, 1)), y.transpose(0, 1))
    empty = layer(x[:0])
    empty.sum().backward()
    assert empty.shape == (0, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(layer.phi(x), expected_phi)
        half = layer(x.bfloat16())
        half.float().sum().backward()
    assert half.dtype == torch.bfloat16 and (half.float() - y).abs().max() < 0.05
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(layer, (x,), dynamic_shapes={"x": {0: batch}})
    assert_close(exported.module()(torch.cat([x, x])), torch.cat([y, y]))


def test_nothing_is_allocated_on_the_meta_device():
    for basis in BASES:
        with torch.device("meta"):
            layer = GroupKANLinear(12, 3, basis=basis)
        assert all(p.is_meta for p in layer.parameters())


def test_groups_may_differ_in_size():
    layer = GroupKANLinear(5, 2, num_groups=2)
    assert layer.phi.groups(torch.device("cpu")).tolist() == [0, 0, 0, 1, 1]


def test_frozen_input_needs_no_slope():
    layer = GroupKANLinear(4, 2, num_groups=2)
    layer(torch.randn(3, 4)).sum().backward()
    assert layer.phi.coefficients.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"basis": "spline"}, "basis='spline'"),
        ({"num_groups": 9}, "num_groups=9"),
        ({"degree": 1}, "degree=1"),
        ({"grid_size": 0}, "grid_size=0"),
        ({"grid_range": (1, 1)}, "grid_range"),
    ],
)
def test_wrong_values_are_told(kwargs, words):
    with pytest.raises(ValueError, match=words):
        GroupKANLinear(8, 2, **kwargs)
