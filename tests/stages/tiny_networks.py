"""Real networks, tiny and untrained, with noise inputs that matter."""

from dataclasses import dataclass

import torch

from semgan.config import EncoderSettings, GeneratorSettings, InversionSettings
from semgan.models.discriminators import ImageCritic
from semgan.models.encoder import Encoder
from semgan.models.generator import Generator
from semgan.models.perceptual import DiscriminatorDistance
from semgan.models.whitening import Whitening, fit_whitening

SIZE_PX = 16
WIDTHS = (16, 12, 8)
W_DIM = 16


@dataclass
class Networks:
    generator: Generator
    encoder: Encoder
    whitening: Whitening
    perceptual: DiscriminatorDistance

    def __iter__(self):
        return iter((self.generator, self.encoder, self.whitening, self.perceptual))


def tiny_networks(*, image_channels: int = 1, label_channels: int = 1) -> Networks:
    torch.manual_seed(0)
    settings = GeneratorSettings(w_dim=W_DIM, mapping_layers=2, widths=WIDTHS)
    generator = Generator(settings, size_px=SIZE_PX, image_channels=image_channels, label_channels=label_channels)
    with torch.no_grad():
        for convolution in generator.convolutions:
            convolution.noise_strength.fill_(0.1)
    encoder = Encoder(
        EncoderSettings(trunk="narrow", lateral_width=16),
        size_px=SIZE_PX,
        image_channels=image_channels,
        layers=generator.layers,
        w_dim=W_DIM,
    )
    with torch.no_grad():
        for heads in encoder.heads:
            if hasattr(heads, "weight"):
                heads.weight.mul_(1500)  # codes that differ from the mean latent, as those of a trained encoder do
    critic = ImageCritic(WIDTHS, channels=image_channels)
    return Networks(generator, encoder.eval(), fit_whitening(generator, samples=500), DiscriminatorDistance(critic))


def generated_images(networks: Networks, count: int, *, seed: int = 1) -> torch.Tensor:
    """Images that the generator can reproduce, ``[count, channels, 16, 16]``."""
    z = torch.randn(count, W_DIM, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return networks.generator(z).image.clamp(-1, 1)


def exact(**changes) -> InversionSettings:
    """Inversion settings in float32 with all of Eq. 7's terms."""
    return InversionSettings(**({"precision": "float32", "learning_rate": 0.05, "reduction": "mean"} | changes))
