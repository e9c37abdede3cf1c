"""semgan: segmentation with generative models, from few labels, many unlabelled images, and images unlike all of them.

    import semgan

    semgan.prepare("images", "masks", "dataset", unlabelled="more_images")
    semgan.train("dataset", "run", recipe="lungs-64")
    model = semgan.load("run")
    masks = [answer.label_map for answer in model.segment(["new.png"])]
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Before torch loads its threads: threads that wait by spinning, or that share a core while the other idles, slow
# training up to 30-fold on machines with other work (docs/architecture.md, facts measured). A user's choice wins.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
CORES: set[int] = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
if "OMP_NUM_THREADS" not in os.environ:  # one-thread processes would all be bound to the same core
    os.environ.setdefault("OMP_PROC_BIND", "true")

if TYPE_CHECKING:
    from semgan.data.prepare.folder import prepare_folder as prepare
    from semgan.evaluate import evaluate
    from semgan.methods import load
    from semgan.segment import segment
    from semgan.train import train

__version__ = "0.1.0"
__all__ = ["evaluate", "load", "prepare", "segment", "train"]

_HOMES = {
    "evaluate": ("semgan.evaluate", "evaluate"),
    "load": ("semgan.methods", "load"),
    "prepare": ("semgan.data.prepare.folder", "prepare_folder"),
    "segment": ("semgan.segment", "segment"),
    "train": ("semgan.train", "train"),
}


def __getattr__(name: str) -> Any:
    """Verbs are imported when they are first used: ``semgan --help`` need not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'semgan' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
