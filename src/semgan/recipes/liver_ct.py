"""Liver on CT slices at 256 px, as the paper has it (one 16 GB GPU or more).

Command:  semgan train DATASET -o RUN --recipe liver-ct --labels 20 --method semgan-paper
Cost:     estimate: 7 to 11 hours of one A100 at half the width; not run by us yet (docs/gpu_queue.md)
Score:    the paper, 20 labelled volumes: Dice .896 CT, .499 and .458 MRI in and out of phase; not reproduced
Source:   supplement sections 2 and 3; method sections 3 to 6. Clipping and lambda_3 go by `segment --modality ct|mri`
"""

from semgan.config import Settings, override


def recipe() -> Settings:
    return override(
        Settings(),
        {
            "metric": "dice",
            "preprocessing": {"size_px": 256, "channels": 1, "clip": (-200, 400)},
            "modalities": ("ct", "mri"),
            "inversion": {"lambda_pixel": 0.001, "lambda_pixel_mri": 1e-5, "steps": 400},
        },
        "liver-ct",
    )
