"""Turn a finished run on phantoms into weights that the package ships: half precision, with recipe, card and log.

    python scripts/ship_weights.py RUN src/semgan/weights/phantoms-faces

Weights in the repository come from phantoms only, and are at most 10 MB in all.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from semgan import artifacts
from semgan.config import load

MOST_BYTES = 10_000_000
IN_FULL_PRECISION = "whitening."  # its two matrices are each other's inverse


def main(run: Path, out: Path) -> None:
    if load(run / "config.yaml").recipe != "phantoms":
        raise SystemExit(f"{run} is not a run of the recipe phantoms; other weights do not belong into the repository.")
    description, weights = artifacts.read_model(run)
    card = (run / "model" / "README.md").read_text()
    for state in weights.values():
        for name, tensor in state.items():
            if tensor.is_floating_point() and not name.startswith(IN_FULL_PRECISION):
                state[name] = tensor.half()
    description.pop("format")
    artifacts.save_model(out, description, weights, card)
    for name in ("config.yaml", "environment.json", "log.txt", "metrics.jsonl"):
        shutil.copy(run / name, out / name)
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    print(f"{out}: {size / 1e6:.1f} MB")
    if size > MOST_BYTES:
        raise SystemExit(f"That is more than {MOST_BYTES / 1e6:.0f} MB; train a smaller encoder.")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
