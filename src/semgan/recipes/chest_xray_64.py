"""Lungs on chest X-rays at 64 px, for data of `semgan data prepare chest-xray`: the settings of lungs-64.

Command:  semgan train DATASET -o RUN --recipe chest-xray-64 --labels 35 --split-seed 0
Cost:     about an hour of one core, as lungs-64; 2 GB of memory
Score:    none published yet; of lungs-64 on other data: results/lungs-64
Source:   as lungs-64
"""

from semgan.config import Settings
from semgan.recipes import lungs_64


def recipe() -> Settings:
    return lungs_64.recipe()
