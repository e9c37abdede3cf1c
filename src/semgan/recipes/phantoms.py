"""The demo's phantoms at 32 px: faces or chests, small enough to learn live in minutes on two CPU cores.

Command:  semgan demo -o demo   (or: semgan train DATASET -o RUN --recipe phantoms)
Cost:     about 4 minutes at the demo's budget; the shipped weights took the full length, see their log
Score:    the demo's report
Source:   as lungs-64, on a smaller scale
"""

from semgan.config import Settings, override
from semgan.recipes.lungs_64 import SMALL_NETWORKS


def recipe() -> Settings:
    task = {
        "method": "semgan",  # the demo's comparison, and of the shipped weights
        "preprocessing": {"size_px": 32, "channels": 3},
        "generator": {"w_dim": 96, "mapping_layers": 4, "widths": [96, 96, 64, 48]},
        "critics": {"pair_base_width": 24, "pair_layers": 2},
        # As the shipped weights were made.
        "gan": {
            "images": 60_000,
            "batch": 32,
            "learning_rate": 0.002,
            "path_length_every": 16,
            "ema_half_life_images": 5_000,
        },
        "encoder": {"lateral_width": 96, "images": 16_000, "batch": 32},
        "run": {"checkpoint_every_images": 6_400, "preview_every_images": 6_400},
    }
    return override(override(Settings(), SMALL_NETWORKS, "phantoms"), task, "phantoms")
