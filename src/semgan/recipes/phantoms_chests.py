"""The demo's chests at 32 px: a small generator that a CPU with two cores trains live in a few minutes.

Command:  semgan demo -o demo   (or: semgan train DATASET -o RUN --recipe phantoms-chests)
Cost:     about 4 minutes on 2 quiet cores (stage 1: 2.5, stage 2: 1)
Score:    results/demo-chests
Source:   as lungs-64, on a smaller scale
"""

from semgan.config import Settings, override
from semgan.recipes.lungs_64 import SMALL_NETWORKS


def recipe() -> Settings:
    task = {
        "method": "semgan",  # the demo's comparison
        "metric": "dice",
        "preprocessing": {"size_px": 32, "channels": 1},
        "generator": {"w_dim": 64, "mapping_layers": 4, "widths": [64, 64, 48, 32]},
        "critics": {"pair_base_width": 16, "pair_layers": 2},
        # As results/demo-chests was made: of networks this small an image in batches of 8 costs nearly twice the time.
        "gan": {
            "images": 16_000,
            "batch": 32,
            "learning_rate": 0.002,
            "path_length_every": 16,
            "ema_half_life_images": 5_000,
        },
        "encoder": {"lateral_width": 64, "images": 9_600, "batch": 16},
        # More than fits: the demo stops the rival by the clock, after the time that ours took.
        "baseline": {"images": 96_000},
        "run": {"checkpoint_every_images": 6_400, "preview_every_images": 6_400},
    }
    return override(override(Settings(), SMALL_NETWORKS, "phantoms-chests"), task, "phantoms-chests")
