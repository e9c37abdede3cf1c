"""Liver on CT slices at 64 px, for CT and MRI, sized for two CPU cores.

Command:  semgan train DATASET -o RUN --recipe liver-ct-64 --labels 8 --split-seed 0
Cost:     as lungs-64 with --method semgan, about 40 minutes of one core, 2 GB of memory
Score:    phantoms, batch 32, 75 minutes, Dice per patient: CT .861, MRI in phase .408, out .667 (results/liver-64)
Source:   as lungs-64; clipping and the ratio of the two lambda_3 as in liver-ct (method 5 and 6)
"""

from semgan.config import Settings, override
from semgan.recipes import liver_ct
from semgan.recipes.lungs_64 import SMALL_NETWORKS


def recipe() -> Settings:
    paper = liver_ct.recipe()
    small = override(Settings(), SMALL_NETWORKS, "liver-ct-64")
    assert paper.inversion.lambda_pixel_mri is not None
    # lambda_3 itself belongs to the small networks (mean squares, other distances); MRI's share of it is the paper's.
    share_of_mri = paper.inversion.lambda_pixel_mri / paper.inversion.lambda_pixel
    task = {
        "method": "semgan",  # a student has not been tried from CT to MRI
        "metric": paper.metric,
        "preprocessing": {**paper.preprocessing.model_dump(), "size_px": 64},
        "modalities": paper.modalities,
        "gan": {"class_share_weight": 1.0},  # the liver has 5 % of the pixels
        "inversion": {"lambda_pixel_mri": small.inversion.lambda_pixel * share_of_mri},
    }
    return override(small, task, "liver-ct-64")
