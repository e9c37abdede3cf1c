"""Dropout that draws for the rows of all processes, where there is anything to draw."""

from __future__ import annotations

import torch
from torch import nn

from semgan import ranks
from semgan.runtime.distributed import with_whole_batch_dropout


def test_it_leaves_out_what_one_process_would_of_this_ones_rows(monkeypatch):
    network = nn.Sequential(nn.Dropout(0.5))
    whole = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    expected = network(whole)
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    torch.manual_seed(3)
    assert torch.equal(with_whole_batch_dropout(network)(whole[3:]), expected[3:])


def test_layers_that_leave_nothing_out_stay_torchs_own(monkeypatch):
    """Every layer of MONAI's U-Net has one; a tensor of the whole batch for each took a fifth of a step."""
    monkeypatch.setattr(ranks, "count", lambda: 2)
    network = with_whole_batch_dropout(nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.1)))
    assert type(network[0]) is nn.Dropout and type(network[1]) is not nn.Dropout  # type: ignore[index]
