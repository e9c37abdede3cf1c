"""One of the processes of test_several_processes.py: trains with its sisters and leaves files that the tests look at.

    python worker.py DATASET OUT   with torchrun's environment; OUT/quick.json: changes of settings
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from several_stages import BUILDERS, CONTROL, REAL_SCORES, UNSEEN, trained

from semgan import ranks
from semgan import train as module
from semgan.artifacts import save_checkpoint, write_json
from semgan.models.perceptual import DiscriminatorDistance
from semgan.objectives.augmentation import adapted_probability
from semgan.runtime.distributed import fingerprint
from semgan.stages import pipeline
from semgan.train import train


def main(dataset: Path, out: Path) -> None:
    changes = json.loads((out / "quick.json").read_text())

    def start(name: str, more: list[str], **options: object) -> object:
        return train(dataset, out / name, recipe="debug", changes=[*changes, *more], device="cpu", **options)

    module._report = lambda run: []  # type: ignore[assignment]  # drawing curves takes most of so short a training
    with ranks.joined():
        number = ranks.rank()
        notes: dict[str, object] = {"stages": {}}
        scores = torch.tensor(REAL_SCORES).chunk(2)[number]
        notes["probability"] = float(adapted_probability(torch.tensor(0.5), scores, **CONTROL))
        for name in BUILDERS:
            stage, losses, _ = trained(name)
            notes["stages"][name] = {"losses": losses, "fingerprint": fingerprint(stage.state())}
            if number == 0:
                save_checkpoint(out / "stages" / f"{name}.safetensors", stage.state())
        start("whole", [], method="semgan-student")
        start("chosen", [], method="semgan")
        start("one-to-two", UNSEEN, stage="gan")
        try:
            start("two-to-one", UNSEEN, stage="gan", progress=at(8, signal.SIGTERM) if number == 1 else None)
        except KeyboardInterrupt:
            notes["interrupted"] = True
        try:
            start("uneven", ["gan.batch=3"])
        except ValueError as error:
            notes["uneven"] = str(error)
        if number == 1:
            pipeline.build_perceptual = another_distance  # type: ignore[assignment]
        try:
            start("differing", [], method="semgan")
        except ValueError as error:
            notes["differing"] = str(error)
        write_json(out / f"notes-{number}.json", notes)
        ranks.wait()
        began = time.monotonic()
        try:
            bomb = at(12, signal.SIGKILL) if number == 1 else None
            start("killed", ["gan.images=40000", *UNSEEN], stage="gan", progress=bomb)
        except ranks.ProcessLost as error:
            write_json(out / "lost.json", {"message": str(error), "seconds": time.monotonic() - began})
            sys.exit(2)


def another_distance(settings: object, critic: torch.nn.Module, channels: int) -> object:
    """As on a machine that has not the weights that the others have."""
    torch.nn.init.zeros_(next(critic.parameters()))
    return DiscriminatorDistance(critic), "another one"


def at(images: int, wish: int) -> object:
    """Send this process a signal as soon as that many images are seen."""

    def progress(done: int, total: int, what: str) -> None:
        if what == "train gan" and done >= images:
            os.kill(os.getpid(), wish)

    return progress


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
