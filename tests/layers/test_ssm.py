"""The selective scan compared with a step-by-step recurrence, and the layers built on it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from mmfusion.layers import MambaBlock, SelectiveSSM, SSMEncoder, compact, scan, selective_scan, take


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def recurrence(u, delta, A, B, C):
    """The linear recurrence with Mamba's discretization, one sample, step and channel at a time."""
    rows = []
    for b in range(u.shape[0]):
        channels = []
        for d in range(u.shape[2]):
            h, ys = torch.zeros(A.shape[1], dtype=u.dtype), []
            for t in range(u.shape[1]):
                h = torch.exp(delta[b, t, d] * A[d]) * h + delta[b, t, d] * B[b, t] * u[b, t, d]
                ys.append(C[b, t] @ h)
            channels.append(torch.stack(ys))
        rows.append(torch.stack(channels, -1))
    return torch.stack(rows)


def scan_inputs(batch=2, length=7, dim=3, state=4, dtype=torch.float64):
    u, delta = torch.randn(batch, length, dim, dtype=dtype), torch.rand(batch, length, dim, dtype=dtype)
    A = -torch.rand(dim, state, dtype=dtype) - 0.1
    B, C = torch.randn(batch, length, state, dtype=dtype), torch.randn(batch, length, state, dtype=dtype)
    return [x.requires_grad_() for x in (u, delta, A, B, C)]


def gradients(y, inputs):
    return torch.autograd.grad(y, inputs, torch.arange(1.0, y.numel() + 1, dtype=y.dtype).view_as(y).cos())


@pytest.fixture(params=[1, 3, 100], ids="chunks of {}".format)
def chunked(request, monkeypatch):
    monkeypatch.setattr(scan, "CHUNK_ELEMENTS", request.param * 2 * 3 * 4)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_scan_and_gradients_are_the_recurrences(chunked, length):
    inputs = scan_inputs(length=length)
    y, expected = selective_scan(*inputs), recurrence(*inputs)
    assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients(y, inputs), gradients(expected, inputs), strict=True):
        assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_scan_passes_gradcheck(chunked):
    assert torch.autograd.gradcheck(selective_scan, scan_inputs())


def test_scan_is_the_convolution_of_equation_28_when_nothing_is_selected():
    u, _, A, B, C = scan_inputs(batch=1)
    B, C = B[:, :1].expand_as(B), C[:, :1].expand_as(C)
    step = 0.3
    kernel = torch.stack([(C[0, 0] * torch.exp(step * A * k) * step * B[0, 0]).sum(-1) for k in range(7)])
    expected = torch.stack([sum(kernel[k] * u[0, t - k] for k in range(t + 1)) for t in range(7)])
    assert_close(selective_scan(u, torch.full_like(u, step), A, B, C)[0], expected)


def test_fused_kernel_is_called_in_its_layout():
    inputs = scan_inputs()

    def kernel(u, delta, A, B, C):  # the layout of mamba_ssm's selective_scan_fn
        return recurrence(*(x.transpose(1, 2) if x.ndim == 3 else x for x in (u, delta, A, B, C))).transpose(1, 2)

    assert_close(scan._fused_scan(kernel, *inputs), selective_scan(*inputs))


def test_scan_saves_one_state_per_chunk(monkeypatch):
    monkeypatch.setattr(scan, "CHUNK_ELEMENTS", 16 * 2 * 3 * 4)
    sizes = {}
    for length in (64, 256):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x):
            selective_scan(*scan_inputs(length=length))
        sizes[length] = sum(saved)
    assert sizes[256] < 4 * sizes[64]
    assert sizes[256] < 256 * 2 * 3 * 4 + 2 * 256 * 2 * (3 + 3 + 4 + 4)


def test_scan_below_float32_runs_in_float32():
    inputs = [x.detach().bfloat16() for x in scan_inputs(dtype=torch.float32, length=40)]
    y = selective_scan(*inputs)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, selective_scan(*(x.float() for x in inputs)).bfloat16())


def test_layer_is_algorithm_2():
    layer = SelectiveSSM(6, d_state=4, dt_rank=2).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    projected = x @ layer.x_proj.weight.T
    r, B, C = projected[..., :2], projected[..., 2:6], projected[..., 6:]
    delta = torch.log1p(torch.exp(r @ layer.dt_proj.weight.T + layer.dt_proj.bias))
    assert_close(layer(x), recurrence(x, delta, -layer.A_log.exp(), B, C) + layer.D * x)


def test_layer_starts_as_mamba():
    layer = SelectiveSSM(64, d_state=4)
    assert layer.dt_rank == 4
    assert_close(layer.A_log.exp(), torch.arange(1.0, 5).expand(64, 4))
    step = F.softplus(layer.dt_proj.bias)
    assert 0.0009 < step.min() < 0.005 and 0.02 < step.max() < 0.11
    assert layer.dt_proj.weight.abs().max() <= 0.5


@pytest.mark.parametrize("bidirectional", [False, True])
def test_masked_steps_leave_the_state_as_it_is(bidirectional):
    layer = SelectiveSSM(6, d_state=4, bidirectional=bidirectional)
    x = torch.randn(2, 5, 6)
    at = torch.tensor([1, 2, 5, 6, 8])  # real tokens; gaps before, between and behind
    mask = torch.zeros(2, 10, dtype=torch.bool)
    mask[:, at] = True
    longer = torch.full((2, 10, 6), 50.0)
    longer[:, at] = x
    assert_close(layer(longer, mask)[:, at], layer(x))


def test_second_direction_has_its_own_parameters():
    layer = SelectiveSSM(6, bidirectional=True)
    x = torch.randn(2, 5, 6)
    both = layer(x)
    reverse, layer.reverse = layer.reverse, None
    assert_close(both, layer(x) + reverse(x.flip(1)).flip(1))


def test_block_is_its_figure():
    block = MambaBlock(6, d_state=4, expand=2).eval()
    x = torch.randn(2, 5, 6)
    v, z = (F.layer_norm(x, (6,)) @ block.in_proj.weight.T + block.in_proj.bias).split(12, -1)
    padded = torch.cat([torch.zeros(2, 2, 12), v], 1)
    w = block.conv.weight[:, 0]
    v = torch.stack([(padded[:, t : t + 3] * w.T).sum(1) for t in range(5)], 1) + block.conv.bias
    expected = x + block.out_proj(block.ssm(v * v.sigmoid()) * z * z.sigmoid())
    assert_close(block(x), expected)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_block_looks_where_it_may(bidirectional):
    block = MambaBlock(6, d_state=4, bidirectional=bidirectional).eval()
    x = torch.randn(1, 6, 6, requires_grad=True)
    (grad,) = torch.autograd.grad(block(x)[0, 3].sum(), x)
    seen = grad[0].abs().sum(-1) > 0
    assert seen.tolist() == [True] * 4 + [bidirectional] * 2


def test_encoder_skips_absent_tokens():
    encoder = SSMEncoder(6, num_layers=2, d_state=4).eval()
    x = torch.randn(2, 4, 6)
    at = torch.tensor([0, 2, 5, 6])
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[:, at] = True
    longer = torch.full((2, 9, 6), math.nan)
    longer[:, at] = x
    assert_close(encoder(longer, mask)[:, at], encoder(x))


def test_compact_puts_real_tokens_first_and_comes_back():
    x = torch.arange(10.0).view(2, 5, 1)
    mask = torch.tensor([[False, True, False, True, True], [False, False, False, False, False]])
    moved, front, place = compact(x, mask)
    assert moved[..., 0].tolist() == [[1, 3, 4, 0, 0], [0, 0, 0, 0, 0]]
    assert front.tolist() == [[True, True, True, False, False], [False] * 5]
    assert torch.equal(take(moved, place)[mask], x[mask])


def test_autocast_and_every_gradient():
    encoder = SSMEncoder(16, d_state=4).train()
    x, mask = torch.randn(3, 5, 16), torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoder(x, mask).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in encoder.parameters())
    encoder.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = encoder(x, mask)
    assert_close(y[mask].float(), encoder(x, mask)[mask], rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda: SelectiveSSM(8, d_state=0), "d_state=0"),
        (lambda: MambaBlock(8, kernel_size=4), "kernel_size=4"),
    ],
)
def test_wrong_values_are_told(layer, words):
    with pytest.raises(ValueError, match=words):
        layer()
