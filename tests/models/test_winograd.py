"""Winograd's convolution against torch's: values, derivatives of both orders, and where it is used."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from semgan.models import winograd
from semgan.models.layers import EqualConv2d, ModulatedConv2d
from semgan.models.winograd import convolve_3x3, is_worth_it


def direct(x, weight):
    return F.conv2d(x, weight, padding=1)


def ours(x, weight):
    return winograd._Convolution.apply(x, weight, False)


def derivatives(convolution, x, weight):
    """The answer, the gradients of a curved function of it, and the gradients of their squares."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    answer = convolution(x, weight)
    first = torch.autograd.grad((answer**3).mean(), (x, weight), create_graph=True)
    second = torch.autograd.grad(first[0].square().sum() + first[1].square().sum(), (x, weight))
    return answer, *first, *second


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 5),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    tiles=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    at_once=st.sampled_from([1, 7, 256]),
    channels_last=st.booleans(),
)
def test_it_equals_torchs_to_the_second_derivative(batch, channels, tiles, at_once, channels_last):
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, channels[0], 4 * tiles[0], 4 * tiles[1], dtype=torch.float64, generator=generator)
    weight = torch.randn(channels[1], channels[0], 3, 3, dtype=torch.float64, generator=generator)
    if channels_last:
        x, weight = (each.contiguous(memory_format=torch.channels_last) for each in (x, weight))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "TILES_AT_ONCE", at_once)
        found = derivatives(ours, x, weight)
    for own, expected in zip(found, derivatives(direct, x, weight), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-9)


def test_derivatives_of_the_transposed_convolution_and_of_the_weights_own():
    x = torch.randn(2, 2, 8, 4, dtype=torch.float64, requires_grad=True)
    answer = torch.randn(2, 3, 8, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    for work, inputs in (
        (lambda a, w: winograd._Convolution.apply(a, w, True), (answer, weight)),
        (winograd._Correlation.apply, (x, answer)),
    ):
        assert torch.autograd.gradcheck(work, inputs)
        assert torch.autograd.gradgradcheck(work, inputs)


def test_wide_layers_in_float32_are_close_to_exact_ones():
    x = torch.randn(2, 128, 64, 64).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(256, 128, 3, 3), torch.randn(256)
    assert is_worth_it(x, weight)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    error = (convolve_3x3(x, weight, bias).double() - exact).norm() / exact.norm()
    assert 1e-8 < error < 1e-5  # torch's own 2e-7


@pytest.mark.parametrize(
    ("shape", "weight", "used"),
    [
        ((4, 512, 16, 16), (512, 512, 3, 3), False),
        ((1, 128, 32, 32), (128, 128, 3, 3), True),
        ((64, 128, 16, 16), (128, 128, 3, 3), False),
        ((8, 64, 64, 64), (64, 64, 3, 3), False),
        ((8, 128, 64, 64), (64, 128, 3, 3), False),
        ((4, 128, 18, 64), (128, 128, 3, 3), False),
    ],
)
def test_it_is_used_where_layers_are_wide_and_large(shape, weight, used):
    x, weight = torch.empty(shape), torch.empty(weight)
    assert is_worth_it(x, weight) is used
    assert not is_worth_it(x.bfloat16(), weight.bfloat16())
    assert not is_worth_it(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_worth_it(x, weight)


def test_layers_use_it(monkeypatch):
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 2)
    monkeypatch.setattr(winograd, "LEAST_PIXELS", 0)
    calls = []
    own = winograd._convolved
    monkeypatch.setattr(winograd, "_convolved", lambda *given: calls.append(given) or own(*given))
    x = torch.randn(2, 2, 8, 8)
    wide, w, noise = ModulatedConv2d(2, 3, 4), torch.randn(2, 4), torch.randn(1, 1, 8, 8)
    plain = EqualConv2d(2, 3, 3, padding=1)
    found = wide(x, w, noise), plain(x)
    assert len(calls) == 2
    for other in (EqualConv2d(2, 3, 3, stride=2), EqualConv2d(2, 3, 1), EqualConv2d(2, 3, 3)):
        other(x)
    assert len(calls) == 2
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 100)
    for own_answer, expected in zip(found, (wide(x, w, noise), plain(x)), strict=True):
        torch.testing.assert_close(own_answer, expected, rtol=1e-4, atol=1e-5)


def test_answers_and_gradients_do_not_share_memory_with_later_ones():
    """Buffers stay from call to call, and every thread has its own."""
    inputs = [(torch.randn(3, 4, 16, 16), torch.randn(5, 4, 3, 3)) for _ in range(4)]
    expected = [derivatives(direct, *each) for each in inputs]
    found = {}

    def work(number):
        for _ in range(20):
            found[number] = derivatives(ours, *inputs[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [derivatives(ours, *each) for each in inputs] + [found[number] for number in range(4)]
    for own, exact in zip(found, [*expected, *expected], strict=True):
        for each, other in zip(own, exact, strict=True):
            torch.testing.assert_close(each, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("odd", [torch.inference_mode, lambda: torch.device("meta")])
def test_what_is_kept_from_call_to_call_does_not_remember_where_it_was_made(odd):
    """Inference mode's tensors could not be written to outside it; the default device is no buffer's."""
    inputs = torch.randn(1, 2, 8, 8), torch.randn(2, 2, 3, 3)
    found = []

    def work():  # in a new thread, which has no buffers yet
        winograd._transform.cache_clear()
        with odd():
            ours(*inputs)
        found.extend(derivatives(ours, *inputs))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    for own, expected in zip(found, derivatives(direct, *inputs), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-3)


def test_an_image_is_answered_alike_alone_and_among_others():
    x, weight = torch.randn(9, 128, 32, 32), torch.randn(128, 128, 3, 3)
    alone = torch.cat([convolve_3x3(x[row : row + 1], weight) for row in range(9)])
    assert is_worth_it(x, weight) and is_worth_it(x[:1], weight)
    torch.testing.assert_close(convolve_3x3(x, weight), alone, rtol=1e-6, atol=1e-5)


def test_an_answer_may_be_changed_in_place():
    x, weight = torch.randn(1, 2, 4, 4, requires_grad=True), torch.randn(3, 2, 3, 3)
    answer = ours(x, weight)
    answer += 1
    answer.sum().backward()
    assert answer.is_contiguous(memory_format=torch.channels_last)
