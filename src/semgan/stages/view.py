"""How a picture was taken: pose and tone, which a latent code need not express and the inversion may explain beside it.

    x* is explained by  tone(pose(G_x(w+))),  and its mask is  pose(G_y(w+))

Images of another source differ from the training images in zoom, position, proportions, exposure and contrast. The
generator has seen little of that, so that a code alone must bend anatomy to explain it. Departure: the paper's Eq. 7
searches the code alone. Both are given in standard deviations of a Gaussian prior (``inversion.lambda_pose``,
``lambda_tone``), so that one learning rate serves code, pose and tone; zeros change nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from semgan.types import JointImage

# Standard deviations: shift of 8 % of the side (2 long here), size of 10 % in each direction, rotation of 6 degrees.
SHIFT, LOG_SIZE, ANGLE = 0.16, 0.1, 0.1
POSE = 5  # shift right, shift down, log size across, log size down, rotation
# Of the mid-tones' lift, the logarithm of the contrast and the brightness, for values in [-1, 1].
LIFT, LOG_CONTRAST, BRIGHTNESS = 0.1, 0.2, 0.15
TONE = 3


def posed(planes: Tensor, pose: Tensor) -> Tensor:
    """``[batch, channels, side, side]`` moved by ``pose [batch, 5]``; outside lies the reflected picture."""
    shift, size = SHIFT * pose[:, :2], torch.exp(-LOG_SIZE * pose[:, 2:4])
    cosine, sine = torch.cos(ANGLE * pose[:, 4]), torch.sin(ANGLE * pose[:, 4])
    across, down = size[:, 0], size[:, 1]
    # From a pixel of the result to where it comes from: shifted back, rotated back, then stretched back.
    linear = torch.stack([across * cosine, across * sine, -down * sine, down * cosine], 1).view(-1, 2, 2)
    matrix = torch.cat([linear, -(linear @ shift[:, :, None])], 2)
    grid = F.affine_grid(matrix, list(planes.shape), align_corners=False)
    return F.grid_sample(planes.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def toned(image: Tensor, tone: Tensor) -> Tensor:
    """``[batch, channels, side, side]`` with every channel's values changed by ``tone [batch, channels, 3]``.

    Mid-tones are lifted along a parabola that keeps -1 and 1, which is rising for lifts below five deviations; then
    contrast and brightness.
    """
    lift, contrast, brightness = (tone[:, :, i, None, None] for i in range(TONE))
    lifted = image + LIFT * lift * (1 - image.square())
    return lifted * torch.exp(LOG_CONTRAST * contrast) + BRIGHTNESS * brightness


def seen(joint: JointImage, pose: Tensor | None, tone: Tensor | None) -> JointImage:
    """The generated pair as the camera saw it; None: as it is."""
    image, logits = joint.image, joint.logits
    if pose is not None:
        image, logits = posed(torch.cat([image.float(), logits.float()], 1), pose).split(
            [image.shape[1], logits.shape[1]], 1
        )
    if tone is not None:
        image = toned(image.float(), tone)
    return JointImage(image, logits)
