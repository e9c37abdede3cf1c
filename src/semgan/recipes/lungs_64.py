"""Lungs on chest X-rays at 64 px, sized for two CPU cores.

Command:  semgan train DATASET -o RUN --recipe lungs-64 --labels 35 --split-seed 0
Cost:     about an hour of one core (minutes: stage 1 14, stage 2 18, pairs and student 25, choices 6), 2 GB of memory;
          `--method semgan`, without a student: about 40 minutes
Score:    results/benchmark-64 (15 minutes; an hour); results/lungs-64 (semgan, batch 32, 48,000 and 24,000 images)
Source:   method sections 3 to 5, preprocessing section 6; widths and departures are ours (docs/architecture.md)
"""

from semgan.config import Settings, override

SMALL_NETWORKS = {
    "method": "semgan-student",  # ahead of the generative model alone in all cells of results/benchmark-64
    "generator": {"w_dim": 128, "mapping_layers": 4, "widths": [128, 128, 128, 64, 32]},
    "critics": {"pair_base_width": 32, "pair_layers": 2},
    # Small batches, a high rate and an average that follows closely: by steps, not by images, the GAN learns from few
    # images. Frechet distance .16 after 6,400 images, where batch 32 at 0.002 took 33,000 (results/gan-steps-64).
    "gan": {
        "images": 12_000,
        "batch": 8,
        "learning_rate": 0.004,
        "r1_gamma": 1.0,
        "pair_r1_gamma": 1.0,
        "path_length_every": 8,
        "feature_matching_of": "means",
        "pair_augment": "both",
        "augment": "adaptive",
        "augment_speed_images": 50_000,
        "ema_half_life_images": 2_000,
    },
    # LPIPS' VGG16 costs several times the networks themselves at 64 px, and a download of half a gigabyte.
    "perceptual": {"distance": "discriminator"},
    "encoder": {
        "trunk": "narrow",
        "lateral_width": 128,
        "images": 24_000,
        "batch": 8,
        "learning_rate": 0.002,
        "generated_weight": 1.0,
        "photometric_augment": 0.5,
    },
    "inversion": {
        "space": "whitened",
        "reduction": "mean",
        "learning_rate": 0.05,
        "lambda_encoder": 0.0,
        "lambda_pixel": 0.1,
        "lambda_prior": 0.001,
    },
    "baseline": {
        "trunk": "narrow",
        "widths": [16, 32, 64, 128],
        "images": 48_000,  # UniMatch stands still there (results/members-64); faces are learnt from 19,000 on
        "learning_rate": 0.0005,
        "ema_decay": 0.99,  # 0.999 would average over most of these few steps
        "discriminator_width": 16,
    },
    "run": {"checkpoint_every_images": 3_200, "preview_every_images": 3_200},
}


def recipe() -> Settings:
    task = {
        "metric": "dice",
        "preprocessing": {"size_px": 64, "channels": 1, "equalise_histogram": True, "gamma": 0.5},
    }
    return override(Settings(), SMALL_NETWORKS | task, "lungs-64")
