"""Lungs on chest X-rays at 256 px, as the paper has it (one 16 GB GPU or more).

Command:  semgan train DATASET -o RUN --recipe chest-xray --labels 35 --method semgan-paper
Cost:     estimate: 7 to 11 hours of one A100 at half the width; not run by us yet (docs/gpu_queue.md)
Score:    the paper, 35 labels: Dice .967 JSRT, .961 Montgomery, .932 NIH, .949 Shenzhen; not reproduced yet
Source:   supplement sections 2 and 3; method sections 3 to 6
"""

from semgan.config import Settings, override


def recipe() -> Settings:
    return override(
        Settings(),
        {
            "metric": "dice",
            "preprocessing": {"size_px": 256, "channels": 1, "equalise_histogram": True, "gamma": 0.5},
            "inversion": {"lambda_pixel": 0.001, "steps": 200},
        },
        "chest-xray",
    )
