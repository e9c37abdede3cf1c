"""Skin lesions at 256 px, as the paper has it (one 16 GB GPU or more).

Command:  semgan train DATASET -o RUN --recipe skin --labels 200 --method semgan-paper
Cost:     estimate: 7 to 11 hours of one A100 at half the width; not run by us yet (docs/gpu_queue.md)
Score:    the paper, 200 labels: Jaccard .756 ISIC, .815 PH2, .739 DermIS, .696 DermQuest; not reproduced yet
Source:   supplement sections 2 and 3; method sections 3 to 6
"""

from semgan.config import Settings, override


def recipe() -> Settings:
    return override(
        Settings(),
        {
            "metric": "jaccard",
            "preprocessing": {"size_px": 256, "channels": 3},
            "inversion": {"lambda_pixel": 0.1, "steps": 200},
        },
        "skin",
    )
