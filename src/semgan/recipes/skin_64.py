"""Skin lesions at 64 px, sized for two CPU cores.

Command:  semgan train DATASET -o RUN --recipe skin-64 --labels 40 --split-seed 0
Cost:     about an hour of one core, 2 GB of memory
Score:    results/skin-64
Source:   as lungs-64, without preprocessing (method section 6)
"""

from semgan.config import Settings, override
from semgan.recipes.lungs_64 import SMALL_NETWORKS


def recipe() -> Settings:
    task = {"metric": "jaccard", "preprocessing": {"size_px": 64, "channels": 3}}
    return override(override(Settings(), SMALL_NETWORKS, "skin-64"), task, "skin-64")
