"""Pictures as files: which files an image of so many channels becomes."""

from __future__ import annotations

import numpy as np


def picture_files(
    image: np.ndarray, stem: str, ending: str = ".png", *, numbered: bool = True
) -> dict[str, np.ndarray]:
    """File name -> pixels: one file for grey and RGB, else one grey file per channel (STEM_0000, STEM_0001, ...).

    image: ``[height, width]`` or ``[height, width, channels]``; numbered: a single file is STEM_0000 too, as in nnU-Net
    """
    if image.ndim == 2 or image.shape[-1] == 3:
        return {f"{stem}_0000{ending}" if numbered else f"{stem}{ending}": image}
    return {f"{stem}_{channel:04d}{ending}": image[..., channel] for channel in range(image.shape[-1])}
