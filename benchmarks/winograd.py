"""Winograd's convolution (`semgan.models.winograd`) against torch's, forward and backward, in float32 on a CPU.

    python benchmarks/winograd.py             # writes winograd.csv, winograd.md
    python benchmarks/winograd.py --rounds 9  # more rounds on a noisy machine

Both sides are measured in turn, round after round, by the processor's clock (all threads together). The largest
difference of answers and gradients to the exact ones (float64) is given for both, relative to their size.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import semgan  # noqa: F401  # sets how torch's threads wait

# isort: split
import torch
from speed import HERE, place
from tables import write_tables
from torch import Tensor
from torch.nn import functional as F

from semgan.artifacts import git_commit, versions
from semgan.models.winograd import _Convolution, is_worth_it
from semgan.runtime.device import prepare_cpu

SHAPES = (  # images, channels, side
    (8, 64, 64), (8, 128, 16), (1, 128, 32), (8, 128, 32), (8, 128, 64), (1, 128, 256),
    (4, 256, 32), (4, 512, 8), (1, 512, 16), (4, 512, 16), (1, 512, 32), (4, 512, 32), (4, 512, 64),
)  # fmt: skip
REPETITIONS = 3
SIDES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "direct": lambda x, weight: F.conv2d(x, weight, padding=1),
    "winograd": lambda x, weight: _Convolution.apply(x, weight, False),  # type: ignore[return-value]
}


def gradients(side: str, x: Tensor, weight: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    answer = SIDES[side](x, weight)
    return answer.detach(), *torch.autograd.grad(answer, (x, weight), gradient)


def error(side: str, inputs: tuple[Tensor, ...]) -> float:
    exact = gradients("direct", *(each.detach().double().requires_grad_() for each in inputs))
    found = gradients(side, *inputs)
    return max(float((own - true).norm() / true.norm()) for own, true in zip(found, exact, strict=True))


def row_of(images: int, channels: int, side: int, rounds: int) -> dict[str, object]:
    shapes = ((images, channels, side, side), (channels, channels, 3, 3), (images, channels, side, side))
    inputs = tuple(torch.randn(shape).contiguous(memory_format=torch.channels_last) for shape in shapes)
    inputs = (inputs[0].requires_grad_(), inputs[1].requires_grad_(), inputs[2])
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    for name in SIDES:
        gradients(name, *inputs)
    for _ in range(rounds):
        for name, taken in seconds.items():
            began = time.process_time()
            for _ in range(REPETITIONS):
                gradients(name, *inputs)
            taken.append((time.process_time() - began) / REPETITIONS)
    ratios = [plain / own for plain, own in zip(seconds["direct"], seconds["winograd"], strict=True)]
    return {
        "images": images,
        "channels": channels,
        "side_px": side,
        "direct_ms": round(1000 * statistics.median(seconds["direct"]), 1),
        "winograd_ms": round(1000 * statistics.median(seconds["winograd"]), 1),
        "times_faster": round(statistics.median(ratios), 2),
        "times_faster_min": round(min(ratios), 2),
        "times_faster_max": round(max(ratios), 2),
        "used": "yes" if is_worth_it(inputs[0], inputs[1]) else "no",
        "error_direct": f"{error('direct', inputs):.1e}",
        "error_winograd": f"{error('winograd', inputs):.1e}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    prepare_cpu()
    torch.manual_seed(0)
    rows = [row_of(*shape, args.rounds) for shape in SHAPES]
    note = (
        f"Forward and both gradients, float32, {place(torch.device('cpu'))}, torch {versions()['torch']}, commit "
        f"{git_commit()}; used: whether the networks take Winograd's way there. Command: "
        f"`python benchmarks/winograd.py --rounds {args.rounds}`."
    )
    write_tables(HERE / "winograd", "Winograd's convolution", rows, note)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
