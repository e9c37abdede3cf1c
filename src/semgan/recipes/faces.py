"""Face parts in 8 classes at 256 px, as the paper has it (one 16 GB GPU or more).

Command:  semgan train DATASET -o RUN --recipe faces --labels 150 --method semgan-paper
Cost:     estimate: 7 to 11 hours of one A100 at half the width; not run by us yet (docs/gpu_queue.md)
Score:    the paper, 150 labels: mIoU .760 CelebA-Mask, .634 MetFaces-40; not reproduced yet
Source:   supplement sections 2 and 3; method sections 3 to 6
"""

from semgan.config import Settings, override


def recipe() -> Settings:
    return override(
        Settings(),
        {
            "metric": "miou",
            "preprocessing": {"size_px": 256, "channels": 3},
            "inversion": {"lambda_pixel": 0.001, "steps": 400},
        },
        "faces",
    )
