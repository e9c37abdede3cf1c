"""semgan: segmentation with generative models, from few labels, many unlabelled images, and images unlike all of them.

    from semgan.data.prepare.folder import prepare_folder
    from semgan.train import train

    prepare_folder("images", "masks", "dataset", unlabelled="more_images")
    train("dataset", "run", recipe="lungs-64")
    model = semgan.load("run")
    masks = [answer.label_map for answer in model.segment(["new.png"])]

The verbs live in the modules of the same name (`semgan.train.train`, `semgan.segment.segment`,
`semgan.evaluate.evaluate`): a function `semgan.train` would be hidden by its module on the second access.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch loads its threads: threads that wait by spinning, or that share a core while the other idles, slow
# training up to 30-fold on machines with other work (docs/logbook.md, facts measured). A user's choice wins.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
CORES: set[int] = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
if "OMP_NUM_THREADS" not in os.environ:  # one-thread processes would all be bound to the same core
    os.environ.setdefault("OMP_PROC_BIND", "true")
# Also read when torch loads: large tensors in large pages. Filling in small ones took longer than the arithmetic.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:
    from semgan.types import Segmenter

__version__ = "0.1.0"
__all__ = ["load"]


def load(path: Path | str, *, device: str = "auto") -> Segmenter:
    """A trained model of any method, from RUN or RUN/model: ``.segment(images)``, for generators ``.sample(seeds)``.

    Raises FileNotFoundError where there is no model, ValueError where its files are damaged or of another version.
    """
    from semgan import methods  # torch takes seconds; `semgan --help` must not wait for it

    return methods.load(path, device=device)
