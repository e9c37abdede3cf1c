"""Where the published LPIPS weights come from, and which perceptual distance a run gets."""

from __future__ import annotations

import logging
import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from semgan.config import PerceptualSettings
from semgan.download import DownloadFailed, is_whole, retrieve
from semgan.models.perceptual import LPIPS, DiscriminatorDistance

logger = logging.getLogger(__name__)
TIMEOUT_S = 15


@dataclass(frozen=True)
class Published:
    """A published file: the folder at its publisher, its name there and the SHA-256 of its content."""

    folder: str
    name: str
    sha256: str

    @property
    def url(self) -> str:
        return self.folder + self.name


_IMAGENET = "https://download.pytorch.org/models/"
_LPIPS = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/"

# ImageNet weights as torchvision publishes them (BSD-3-Clause; the name carries the hash's first 8 digits)
TRUNKS = {
    "vgg16": Published(
        _IMAGENET, "vgg16-397923af.pth", "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
    ),
    "alexnet": Published(
        _IMAGENET, "alexnet-owt-7be5be79.pth", "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
    ),
    "squeezenet": Published(
        _IMAGENET, "squeezenet1_1-b8a52dc0.pth", "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b"
    ),
}
# Linear heads of version 0.1 by the authors of LPIPS (BSD-2-Clause)
HEADS = {
    "vgg16": Published(_LPIPS, "vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
    "alexnet": Published(_LPIPS, "alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
    "squeezenet": Published(_LPIPS, "squeeze.pth", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"),
}


class WeightsNotAtHand(ValueError):
    """Published weights could not be had; the message says why and what to do."""


def cache_folder() -> Path:
    """Folder of downloaded weights: ``$SEMGAN_CACHE`` or the user's cache folder."""
    if os.environ.get("SEMGAN_CACHE"):
        return Path(os.environ["SEMGAN_CACHE"])
    import pooch

    return Path(pooch.os_cache("semgan"))


def fetch(published: Published, folder: Path | None = None, *, download: bool = True) -> Path:
    """The published file in the cache folder, downloaded where it is missing or damaged.

    A download appears under its name only when complete and verified. Raises WeightsNotAtHand.
    """
    folder = folder or cache_folder()
    target, checksum = folder / published.name, "sha256:" + published.sha256
    if is_whole(target, checksum):
        return target
    cure = "Give files by perceptual.trunk_weights and .head_weights, or set perceptual.distance=discriminator."
    if not download:
        raise WeightsNotAtHand(f"{published.name} is not in {folder}, and perceptual.download is off. {cure}")
    logger.info("Downloading %s to %s", published.url, folder)
    try:
        retrieve(published.url, target, checksum=checksum, timeout_s=TIMEOUT_S)
    except DownloadFailed as error:
        raise WeightsNotAtHand(f"{error} {cure}") from error
    except OSError as error:  # no disk space, no right to write
        raise WeightsNotAtHand(f"Could not download {published.url}: {error}. {cure}") from error
    return target


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a ``.safetensors`` or ``.pth`` file (tensors only: no code in the file is run)."""
    if not path.is_file():
        raise FileNotFoundError(f"Weights file {path} does not exist.")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} cannot be read as weights (.pth or .safetensors): {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} must hold a flat dictionary of tensors.")
    return state


def load_lpips(settings: PerceptualSettings, folder: Path | None = None) -> LPIPS:
    """LPIPS with published weights: from the given files, else from the cache, else downloaded."""
    lpips = LPIPS(settings.network)
    trunk = settings.trunk_weights or fetch(TRUNKS[settings.network], folder, download=settings.download)
    heads = settings.head_weights or fetch(HEADS[settings.network], folder, download=settings.download)
    try:
        lpips.load_trunk(read_weights(Path(trunk)))
    except ValueError as error:
        raise ValueError(f"{trunk}: {error}") from None
    try:
        lpips.load_heads(read_weights(Path(heads)))
    except ValueError as error:
        raise ValueError(f"{heads}: {error}") from None
    return lpips


def build_perceptual(
    settings: PerceptualSettings, image_critic: nn.Module | None, image_channels: int, folder: Path | None = None
) -> tuple[LPIPS | DiscriminatorDistance, str]:
    """The perceptual distance of a run and one sentence that names it, for log, report and model card.

    ``auto`` takes LPIPS where its weights are given, cached or downloadable, else the trained image critic's features.
    Given files that are missing or wrong are an error in every mode. Raises ValueError, FileNotFoundError.
    """
    several = f"mean over {image_channels} channels as grey images"
    channels = {1: "grey repeated to RGB", 3: "RGB"}.get(image_channels, several)
    if settings.distance != "discriminator":
        try:
            return load_lpips(settings, folder), f"LPIPS 0.1 ({settings.network}, {channels}) with published weights"
        except WeightsNotAtHand as error:
            if settings.distance == "lpips":
                raise
            reason = str(error)
    else:
        reason = "asked for by perceptual.distance=discriminator"
    if image_critic is None:
        raise ValueError(f"No perceptual distance: there is no trained image critic either. {reason}")
    description = (
        "features of the trained image critic (not LPIPS: its values do not compare with the paper's); " + reason
    )
    logger.log(logging.WARNING if settings.distance == "auto" else logging.INFO, "Perceptual distance: %s", description)
    return DiscriminatorDistance(image_critic), description
