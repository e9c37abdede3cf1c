"""Do chains mix sooner in the coordinates of a Laplace approximation: the same gradients with and without, in one run.

    python benchmarks/posterior.py                            # the shipped faces; writes posterior.csv and .md
    python benchmarks/posterior.py -m RUN -i IMAGES --images 2 --name lungs-9 --temperature 1e-3

"plain": HMC in the prior's own coordinates, 8 leapfrog steps a move, starts spread by 0.3 of the prior around the
optimised code, as `semgan posterior` drew until it was preconditioned. "preconditioned": what it does now. Both are
given about as many gradients a chain, and diagnosed after every move past the warm-up: the worst R-hat and the smallest
effective sample size (ESS) of the energy and of every class' area. Rows of other names in the tables are kept.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semgan import artifacts, seeding
from semgan.data.phantoms import write_phantom_dataset
from semgan.data.whole_images import find_inputs
from semgan.demo import WEIGHTS
from semgan.generative import load_generative
from semgan.posterior.diagnostics import diagnose
from semgan.posterior.laplace import DESCENT, ROUNDS
from semgan.posterior.latent import KERNELS, LENGTHS, Energy, LatentPosterior, class_shares
from semgan.posterior.preconditioning import RANK, Chains, run_preconditioned
from semgan.posterior.sampler import ChainReport, Kernel, run_chains
from semgan.runtime.device import prepare_cpu

HERE = Path(__file__).parent
PLAIN = Kernel(leapfrog_steps=8, accept=0.7)
PLAIN_DISPERSION = 0.3
FITS = (RANK + 1) * (ROUNDS + 2) + ROUNDS * (DESCENT + 1)  # gradients
COLUMNS: tuple[str, ...] = (
    "model",
    "image",
    "sampler",
    "gradients",
    "seconds",
    "acceptance",
    "r_hat energy",
    "r_hat",
    "ess",
    "commit",
)


class Series:
    """What is diagnosed, after every move."""

    def __init__(self, posterior: LatentPosterior) -> None:
        self.posterior = posterior
        self.energies: list[Tensor] = []
        self.shares: list[Tensor] = []

    def visit(self, _: int, position: Tensor, energy: Tensor) -> None:
        self.energies.append(energy)
        self.shares.append(class_shares(self.posterior.masks(position)))

    def row(self, report: ChainReport, gradients: int) -> dict[str, Any]:
        energies = torch.stack(self.energies, 1).double().cpu().numpy()
        shares = torch.stack(self.shares, 1).cpu().numpy()
        energy = diagnose(energies, must_move=True)
        all_of = [energy, *(diagnose(shares[..., index]) for index in range(1, shares.shape[-1]))]
        return {
            "gradients": gradients,
            "acceptance": round(float(report.acceptance.mean()), 2),
            "r_hat energy": round(energy.r_hat, 2),
            "r_hat": round(max(each.r_hat for each in all_of), 2),
            "ess": round(min(each.ess for each in all_of), 1),
        }


def plain(posterior: LatentPosterior, image: Tensor, start: Tensor, chains: int, times: float) -> dict[str, Any]:
    """As many gradients as `preconditioned` takes."""
    warmup, draws, gradients = lengths(times)
    share = gradients / PLAIN.leapfrog_steps / (warmup + draws)
    warmup, draws = round(warmup * share), round(draws * share)
    start = start.repeat_interleave(chains, 0)
    chance = seeding.normal(0, "benchmark/start", range(len(start)), tuple(start.shape[1:])).to(start)
    series = Series(posterior)
    report = run_chains(
        Energy(posterior, image.repeat_interleave(chains, 0), "default"),
        start + PLAIN_DISPERSION * chance,
        PLAIN,
        warmup=warmup,
        draws=draws,
        visit=series.visit,
    )
    return series.row(report, (warmup + draws) * PLAIN.leapfrog_steps)


def preconditioned(
    posterior: LatentPosterior, image: Tensor, start: Tensor, chains: int, times: float
) -> dict[str, Any]:
    warmup, draws, gradients = lengths(times)
    series = Series(posterior)
    report = run_preconditioned(
        Energy(posterior, image, "default"),
        Energy(posterior, image.repeat_interleave(chains, 0), "default"),
        start,
        KERNELS["hmc"],
        Chains(chains, warmup, draws),
        series.visit,
    )
    return series.row(report, gradients)


def lengths(times: float) -> tuple[int, int, int]:
    """Moves of the warm-up and after it at so many times the default budget, and gradients a chain with all fits (those
    around an image's mode, which its chains share, counted in full)."""
    warmup, thin = LENGTHS["hmc"]
    warmup, draws = round(times * warmup), round(times * thin * 8)
    return warmup, draws, (warmup + draws) * KERNELS["hmc"].leapfrog_steps + FITS


@contextmanager
def faces() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "faces"
        write_phantom_dataset(where, "faces", size_px=48, labelled=2, unlabelled=2, validation=4, test=2, seed=5)
        yield where / "test" / "photo" / "images"


def measured(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    model, _ = load_generative(arguments.model, "cpu")
    posterior = LatentPosterior(model, temperature=arguments.temperature)
    inputs, _ = find_inputs(folder, model.settings.preprocessing.channels)
    rows = []
    for item in inputs[: arguments.images]:
        image = model.preprocess(item.read())[None]
        found = model.segment_batch(image)
        assert found.w_plus is not None
        start = posterior.prior.to_u(model.whitening.to_v(found.w_plus))
        for sampler in (plain, preconditioned):
            began = time.process_time()
            row = sampler(posterior, image, start, arguments.chains, arguments.times)
            row |= {"model": arguments.name, "image": item.stem, "sampler": sampler.__name__}
            rows.append(row | {"seconds": round(time.process_time() - began, 1), "commit": artifacts.git_commit()})
            print({name: rows[-1][name] for name in COLUMNS}, flush=True)
    return rows


def written(rows: list[dict[str, Any]], table: Path, temperature: float) -> None:
    name = rows[0]["model"]
    kept: list[dict[str, Any]] = []
    if table.is_file():
        with open(table, newline="", encoding="utf-8") as lines:
            kept = [row for row in csv.DictReader(lines) if row["model"] != name]
    rows = [*kept, *({column: row[column] for column in COLUMNS} for row in rows)]
    text = io.StringIO()
    lines = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    lines.writeheader()
    lines.writerows(rows)
    artifacts.write_text_atomic(table, text.getvalue())
    shown = COLUMNS[:-1]
    body = ["| " + " | ".join(shown) + " |", "|---" * len(shown) + "|"]
    body += ["| " + " | ".join(str(row[column]) for column in shown) + " |" for row in rows]
    page = f"""# Chains with and without preconditioning

{chr(10).join(body)}

Gradients: of a chain, those of the Laplace fits among them. Seconds: of the processor, one image with all its
chains. ESS: of all moves past the warm-up, of all chains. Last temperature: {temperature:g}. The samplers are
described in benchmarks/posterior.py.
"""
    artifacts.write_text_atomic(table.with_suffix(".md"), page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, default=WEIGHTS / "phantoms-faces")
    parser.add_argument("-i", "--inputs", type=Path, help="folder of images; default: phantoms")
    parser.add_argument("--name", default="phantoms-faces", help="of the model in the tables")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--times", type=float, default=1.0, help="so many times the default budget")
    parser.add_argument("--temperature", type=float, default=3e-4)
    parser.add_argument("-o", "--out", type=Path, default=HERE / "posterior.csv")
    arguments = parser.parse_args()
    prepare_cpu()
    if arguments.inputs is not None:
        rows = measured(arguments, arguments.inputs)
    else:
        with faces() as folder:
            rows = measured(arguments, folder)
    written(rows, arguments.out, arguments.temperature)


if __name__ == "__main__":
    main()
