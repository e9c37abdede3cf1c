"""A stage small enough to see through: every step mixes its weights with numbers of the images shown.

As a program it trains into a run folder and kills itself: ``fake_stage.py RUN between|inside``.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from semgan import seeding
from semgan.artifacts import RunFolder
from semgan.config import RunSettings, Settings
from semgan.runtime.loop import run_stage

BATCH, TOTAL = 4, 64
SETTINGS = RunSettings(log_every_images=8, checkpoint_every_images=16, preview_every_images=32)


class FakeStage:
    name = "gan"
    total_images = TOTAL
    batch = BATCH

    def __init__(self, at=None, width=3):
        self.weights = torch.zeros(width)
        self.momentum = torch.zeros(width)
        self.steps = 0
        self.at = at or {}  # images seen -> what to do before that step

    def step(self, images_seen):
        if images_seen in self.at:
            changed = self.at[images_seen]()
            if changed is not None:
                return changed
        self.steps += 1
        shown = seeding.normal(0, "fake", range(images_seen, images_seen + BATCH), self.weights.shape).mean(0)
        self.momentum = 0.9 * self.momentum + shown
        self.weights = self.weights + self.momentum.sin()
        return {"loss/size": self.weights.square().mean(), "index": torch.tensor(float(images_seen))}

    def state(self):
        return {"weights": self.weights, "momentum": self.momentum}

    def load_state(self, state):
        if state["weights"].shape != self.weights.shape:
            raise RuntimeError(f"size mismatch for weights: {tuple(state['weights'].shape)}\nand more")
        self.weights, self.momentum = state["weights"], state["momentum"]


def train(folder, stage, **more):
    run = RunFolder(Path(folder))
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    return run_stage(stage, run, SETTINGS, **more)


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    RunFolder(Path(sys.argv[1])).create(Settings(), "fake")
    if sys.argv[2] == "between":
        train(sys.argv[1], FakeStage({40: die}))
    replace, times = os.replace, []

    def die_the_second_time(source, target):
        times.append(target)
        die() if len(times) == 2 else replace(source, target)

    os.replace = die_the_second_time
    train(sys.argv[1], FakeStage())
