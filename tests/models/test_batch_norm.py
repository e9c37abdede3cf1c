"""Batch normalisation of several processes' rows; tests/distributed trains real ones with it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from semgan import ranks
from semgan.models.batch_norm import with_whole_batch_norm


@pytest.fixture
def sister(monkeypatch):
    """``sister(sign)``: this process trains with another one, whose rows and gradients are ``sign`` times its own."""

    def joined(sign):
        monkeypatch.setattr(ranks, "count", lambda: 2)
        monkeypatch.setattr(ranks, "gathered", lambda x: torch.cat([x, x * torch.tensor([[sign], [1.0]])[None]]))
        monkeypatch.setattr(ranks, "total", lambda x: x + x * torch.tensor([[1.0], [sign]]))

    return joined


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_is_torchs_own_of_both_processes_rows(sister, sign, memory_format):
    chance = torch.Generator().manual_seed(0)
    rows = 3 + 2 * torch.randn(4, 5, 6, 6, generator=chance).contiguous(memory_format=memory_format)
    weights = torch.randn(rows.shape, generator=chance)
    own, torchs = nn.Sequential(nn.BatchNorm2d(5)), nn.BatchNorm2d(5)
    with torch.no_grad():
        for part in (own[0], torchs):
            part.weight.copy_(torch.linspace(0.5, 2, 5))
            part.bias.copy_(torch.linspace(-1, 1, 5))
    x = rows.clone(memory_format=torch.preserve_format).requires_grad_()
    both = torch.cat([rows, sign * rows]).requires_grad_()
    sister(sign)
    found = with_whole_batch_norm(own)(x)
    (found * weights).sum().backward()
    expected = torchs(both)
    (expected * torch.cat([weights, sign * weights])).sum().backward()
    assert_close(found, expected[:4])
    assert x.grad is not None and both.grad is not None
    assert_close(x.grad, both.grad[:4], rtol=1e-4, atol=1e-5)
    assert_close(own[0].running_mean, torchs.running_mean)
    assert_close(own[0].running_var, torchs.running_var)


def test_a_channel_of_one_value_becomes_the_bias(sister):
    own = nn.Sequential(nn.BatchNorm2d(2)).train()
    sister(1.0)
    x = torch.tensor([3.0, 0.0])[:, None, None].expand(4, 2, 5, 5).clone().requires_grad_()
    found = with_whole_batch_norm(own)(x)
    found.sum().backward()
    assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-6)
    assert_close(own[0].running_var, torch.full((2,), 0.9))
    assert x.grad is not None and bool(x.grad.isfinite().all())


def test_one_process_and_evaluation_keep_torchs_own(sister):
    network = nn.Sequential(nn.BatchNorm2d(2))
    assert with_whole_batch_norm(network)[0] is network[0] and type(network[0]) is nn.BatchNorm2d
    sister(1.0)
    own = with_whole_batch_norm(network).eval()
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert type(own[0]) is not nn.BatchNorm2d
    assert_close(own(x), x / (1 + 1e-5) ** 0.5)
