"""Where to compute, and in which precision."""

import pytest
import torch

from semgan.runtime.device import autocast, choose_device


def test_auto_is_a_cuda_device_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


def test_a_device_that_is_not_there_comes_with_the_cure(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda:0").index == 0
    with pytest.raises(ValueError, match="'cuda:1' is not there: 1 CUDA devices found. Use --device cpu"):
        choose_device("cuda:1")
    with pytest.raises(ValueError, match="Unknown device 'gpu'; use auto, cpu, cuda or cuda:N"):
        choose_device("gpu")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_products_are_computed_in_the_precision_asked_for(precision, dtype):
    with autocast(torch.device("cpu"), precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
