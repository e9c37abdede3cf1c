"""Modes are loans: what a block takes from a module it gives back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Modules in eval mode inside the block; each submodule's own mode is restored after it."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


@contextmanager
def without_weight_gradients(*modules: nn.Module) -> Iterator[None]:
    """No gradients for the modules' weights inside the block (gradients still flow through them)."""
    before = [(weight, weight.requires_grad) for module in modules for weight in module.parameters()]
    for weight, _ in before:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight, needed in before:
            weight.requires_grad_(needed)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Weights and statistics fixed inside the block: eval mode and no weight gradients."""
    with ExitStack() as stack:
        stack.enter_context(evaluating(*modules))
        stack.enter_context(without_weight_gradients(*modules))
        yield


def freeze(module: nn.Module) -> nn.Module:
    """Fix a module for good: no weight gradients, and eval mode that survives ``.train()``."""
    module.requires_grad_(False)
    module.eval()
    module.train = lambda mode=True: module  # type: ignore[method-assign]  # statistics stay fixed too
    return module
