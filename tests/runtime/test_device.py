"""Where to compute, and in which precision."""

import sys
from types import SimpleNamespace

import pytest
import torch

from semgan.runtime import device as devices
from semgan.runtime.device import autocast, choose_device, faster_precision, prepare_cpu


@pytest.fixture
def fresh():
    """Nothing is remembered of another test's machine, nor later of this one's."""
    faster_precision.cache_clear()
    yield
    faster_precision.cache_clear()


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_large_memory_is_kept_while_the_same_sizes_come_again_alone(monkeypatch):
    told = {}
    library = SimpleNamespace(mallopt=lambda option, value: told.update({option: value}))
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: library)
    prepare_cpu(training=True)
    assert told[devices.M_MMAP_MAX] == 0
    prepare_cpu()  # what follows a training in the same process
    assert told[devices.M_MMAP_MAX] > 0 and told[devices.M_MMAP_THRESHOLD] == 32 * 2**20


@pytest.mark.parametrize(
    ("float32", "bfloat16", "faster"), [(0.01, 0.02, "float32"), (0.02, 0.01, "bfloat16"), (0.0100, 0.0105, "bfloat16")]
)
@pytest.mark.usefixtures("fresh")
def test_auto_is_bfloat16_unless_float32_is_clearly_faster(monkeypatch, float32, bfloat16, faster):
    disturbed = iter([5.0] * 4)  # other work on the machine: the fastest of several trials counts

    def seconds(device, dtype):
        return next(disturbed, float32 if dtype == torch.float32 else bfloat16)

    monkeypatch.setattr(devices, "_seconds_of_a_convolution", seconds)
    assert faster_precision("cpu") == faster
    with autocast(torch.device("cpu"), "auto"):
        assert str((torch.ones(2, 2) @ torch.ones(2, 2)).dtype) == f"torch.{faster}"


@pytest.mark.usefixtures("fresh")
def test_a_clear_answer_needs_two_trials_and_one_disturbed_convolution_makes_none(monkeypatch):
    taken = {torch.float32: iter([5.0, *[0.01] * 9]), torch.bfloat16: iter([0.09] * 10)}
    asked = []
    monkeypatch.setattr(
        devices, "_seconds_of_a_convolution", lambda device, dtype: asked.append(dtype) or next(taken[dtype])
    )
    assert faster_precision("cpu") == "float32" and len(asked) == 4


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_trial_computes_what_it_says_wherever_it_is_called(monkeypatch, around):
    seen = []
    own = devices.F.conv2d
    monkeypatch.setattr(devices.F, "conv2d", lambda *given, **more: seen.append(own(*given, **more)) or seen[-1])
    with around():
        for dtype in (torch.float32, torch.bfloat16):
            assert 1e-5 < devices._seconds_of_a_convolution(torch.device("cpu"), dtype) < 60
            assert seen[-1].dtype == dtype and seen[-1].requires_grad


@pytest.mark.parametrize(("native", "faster"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.usefixtures("fresh")
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float32(monkeypatch, native, faster):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert faster_precision("cuda") == faster
