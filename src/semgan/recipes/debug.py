"""Any prepared dataset through all stages in under a minute on a CPU: every code path, useless masks.

Command:  semgan train DATASET -o RUN --recipe debug
Cost:     under one minute on 2 CPU cores
Score:    none worth a look
Source:   none, as small as runs
"""

from semgan.config import Settings, override


def recipe() -> Settings:
    return override(
        Settings(),
        {
            "preprocessing": {"size_px": 32},
            "generator": {"w_dim": 32, "mapping_layers": 2, "widths": [32, 32, 16, 16]},
            "critics": {"pair_base_width": 8, "pair_layers": 2},
            "gan": {"images": 320, "batch": 8, "augment": "adaptive", "pair_augment": "both", "r1_every": 4},
            "encoder": {
                "trunk": "narrow",
                "lateral_width": 32,
                "images": 160,
                "batch": 8,
                "generated_weight": 1.0,
                "photometric_augment": 0.5,
            },
            "inversion": {
                "space": "whitened",
                "reduction": "mean",
                "steps": 10,
                "choice_cases": 8,
                "learning_rate": 0.05,
            },
            "perceptual": {"distance": "discriminator"},
            "baseline": {
                "trunk": "narrow",
                "widths": [4, 8, 16, 16],
                "images": 320,
                "batch": 8,
                "unlabelled_batch": 4,
                "discriminator_width": 4,
            },
            "student": {"pool_images": 64, "pool_batch": 16},
            "run": {
                "log_every_images": 40,
                "checkpoint_every_images": 80,
                "preview_every_images": 160,
                "validation_cases": 8,
            },
        },
        "debug",
    )
