"""What can be set, in which unit, and why the default is what it is; `semgan.config` loads, changes and saves it.

``None`` means "not used". Numbers marked [S] come from the paper's supplement, [M] from the paper, [C] from the
authors' code, [ADA] from Karras et al. 2020 (arXiv:2006.06676).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from semgan.types import MOST_SEED, Metric

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISION = "auto: bfloat16, or float32 where that is faster; found when a training begins, and kept in its config.yaml"
PRECISION_SECTIONS = ("gan", "encoder", "baseline", "inversion")  # of `Settings`, that have one
Modality = Literal["ct", "mri"]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class Frozen(BaseModel):
    """Base of all settings: immutable; unknown keys, nan and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _meant(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's own reading put right: ``yes`` is no number, ``None`` is none, ``1e5`` is a whole number."""
        kind = cls.model_fields[info.field_name or ""].annotation
        kinds = (kind, *get_args(kind))
        if isinstance(value, bool) and bool not in kinds and (int in kinds or float in kinds):
            raise ValueError("a number is expected; YAML reads yes, no, on, off, true and false as truth values")
        if value == "None" and type(None) in kinds:
            return None
        if isinstance(value, str) and int in kinds:
            return _whole(value)
        return value


def _whole(text: str) -> int | str:
    """``"1e5"``, which YAML leaves a text, as a whole number; other texts as they are."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else text


class Preprocessing(Frozen):
    """Decoded image -> network input; the one definition for training, segmentation and everything later."""

    size_px: int = Field(
        default=64, ge=16, le=512, description="side of the square the image is squashed to; a power of two"
    )
    channels: int = Field(default=1, ge=1, description="1 grey, 3 RGB, else N")
    equalise_histogram: bool = Field(
        default=False, description="chest X-ray [S]: global histogram equalisation, per channel"
    )
    gamma: float = Field(default=1.0, gt=0, description="applied to values in [0, 1]; chest X-ray 0.5")
    clip: tuple[float, float] | None = Field(
        default=None, description="bounds in the image's own unit, then stretched slice by slice; CT -200 to 400 HU [S]"
    )
    clip_percentiles: tuple[float, float] | None = Field(
        default=None, description="bounds per slice in %, then stretched slice by slice; MRI 0.1 to 99.9 [S]"
    )

    @field_validator("clip", "clip_percentiles")
    @classmethod
    def _rising(cls, bounds: tuple[float, float] | None, info: ValidationInfo) -> tuple[float, float] | None:
        if bounds is None:
            return None
        lowest, highest = (0, 100) if info.field_name == "clip_percentiles" else (-math.inf, math.inf)
        if not lowest <= bounds[0] < bounds[1] <= highest:
            raise ValueError(f"the bounds must rise and lie within {lowest} to {highest}")
        return bounds


class DataSettings(Frozen):
    mirror: bool = Field(default=True, description="horizontal flips for unlabelled and labelled images [S]")
    affine_scale: float = Field(default=0.1, ge=0, lt=1, description="labelled images: scale 1 +- this [S]")
    affine_scale_range: tuple[float, float] | None = Field(
        default=None, description="labelled images: scale from the first to the second number instead; nnU-Net 0.7, 1.4"
    )
    affine_translate: float = Field(default=0.15, ge=0, description="labelled images: shift, share of the side [S]")
    affine_rotate_deg: float = Field(default=15.0, ge=0, description="labelled images: rotation +- this [S]")
    affine_probability: float = Field(
        default=1.0, ge=0, le=1, description="labelled images: how often each of scale, shift and rotation is done"
    )
    fine_labels: Literal[1, 2, 4] = Field(
        default=1, description="labelled masks are learnt from at so many times the network's side (Departure)"
    )

    @field_validator("affine_scale_range")
    @classmethod
    def _rising(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and not 0 < bounds[0] <= bounds[1]:
            raise ValueError("the two scales lie above 0 and rise")
        return bounds


class GeneratorSettings(Frozen):
    w_dim: int = Field(default=512, ge=1, description="size of z and w [S]")
    mapping_layers: int = Field(default=8, ge=1, description="StyleGAN2")
    mapping_lr_multiplier: float = Field(default=0.01, gt=0, description="StyleGAN2")
    widths: tuple[Count, ...] | None = Field(
        default=None, description="channels at 4, 8, 16, ... px; None: StyleGAN2's table times width_multiplier"
    )
    width_multiplier: float = Field(
        default=2.0, gt=0, description="authors' channel multiplier: 512 to 64 px, 256 at 128, 128 at 256"
    )


class CriticSettings(Frozen):
    widths: tuple[Count, ...] | None = Field(
        default=None, description="image critic's channels at 4, 8, ... px; None: as generator"
    )
    pair_base_width: Count = Field(
        default=64, description="pair critic's first width; doubles per layer, at most x8 [C]"
    )
    pair_scales: int = Field(default=3, ge=1, description="pair critic's scales [S]")
    pair_layers: int = Field(default=3, ge=1, description="strided layers per scale [C]")


class GanSettings(Frozen):
    """Stage 1 [S sec. 2]."""

    images: Count = Field(default=3_200_000, description="training length in images seen (100k steps of 32 [S])")
    batch: int = Field(default=32, ge=2)
    learning_rate: Rate = 0.002
    beta1: float = Field(default=0.0, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    r1_gamma: Weight = Field(default=10.0, description="image critic, lazy")
    pair_r1_gamma: Weight = Field(default=10.0, description="pair critic, lazy")
    r1_every: int = Field(default=16, ge=1, description="steps between R1 penalties; the weight is scaled by it")
    path_length_weight: Weight = 2.0
    path_length_every: int = Field(default=4, ge=1)
    path_length_batch_share: float = Field(default=0.5, gt=0, le=1, description="StyleGAN2: half a batch is enough")
    style_mixing: float = Field(default=0.9, ge=0, le=1, description="probability [S]")
    feature_matching: Weight = Field(default=2.0, description="weight of the pair critic's feature matching loss [C]")
    feature_matching_of: Literal["pairs", "means"] = Field(
        default="pairs", description="pairs: image by image [C]; means: of the batch (Departure, see objectives)"
    )
    class_share_weight: float = Field(
        default=0.0, ge=0, description="keeps rare classes in the generator's labels (Departure, see objectives.labels)"
    )
    labelled_in_image_critic: bool = Field(
        default=True, description="labelled images join the unlabelled ones as real images"
    )
    ema_half_life_images: Rate = Field(default=10_000, description="half-life of the averaged generator, images [ADA]")
    augment: Literal["none", "fixed", "adaptive"] = Field(
        default="none", description="what the critics see; adaptive: [ADA]"
    )
    augment_probability: float = Field(default=0.0, ge=0, le=1, description="start (adaptive) or constant (fixed)")
    pair_augment: Literal["real", "both"] = Field(
        default="real",
        description="affine changes of the pair critic's input: of real pairs only [S], or of generated ones too, with "
        "brightness and contrast (Departure: so the critic cannot tell them by the pose)",
    )
    augment_target: float = Field(
        default=0.6, description="adaptive: aim for mean sign of the critic's real scores [ADA]"
    )
    augment_speed_images: float = Field(
        default=100_000, gt=0, description="adaptive: images for the probability to go from 0 to 1"
    )
    precision: Precision = Field(default="auto", description=PRECISION)


class PerceptualSettings(Frozen):
    distance: Literal["auto", "lpips", "discriminator"] = Field(
        default="auto",
        description="auto: LPIPS where weights are at hand, else features of the trained image critic (logged)",
    )
    network: Literal["vgg16", "alexnet", "squeezenet"] = "vgg16"
    trunk_weights: Path | None = Field(default=None, description="published ImageNet weights of the trunk, a file")
    head_weights: Path | None = Field(default=None, description="published linear heads, a file")
    download: bool = Field(default=True, description="fetch missing weights (with checksum) where there is a network")


class EncoderSettings(Frozen):
    """Stage 2 [S sec. 2]."""

    trunk: Literal["resnet50", "narrow"] = Field(
        default="resnet50", description="narrow: a small residual trunk for 16 to 64 px"
    )
    lateral_width: Count = Field(default=512, description="FPN width [S]")
    images: Count = Field(default=960_000, description="60k steps of 16 [S]")
    batch: int = Field(default=16, ge=2)
    learning_rate: Rate = 0.001
    constant_share: float = Field(default=0.5, ge=0, le=1, description="share of training before the cosine decay [S]")
    schedule_images: int | None = Field(default=None, ge=1, description="images at which the decay ends; None: images")
    clip_norm: Rate = 2.0
    lambda_pixel: Weight = Field(default=0.1, description="lambda_1, weight of the squared pixel distance [S]")
    supervised_weight: Weight = Field(default=1.0, description="weight of cross-entropy + Dice on labelled images")
    perceptual_weight: Weight = 1.0
    generated_weight: Weight = Field(
        default=0.0, description="weight of the relative squared w error on generated images (Departure)"
    )
    lambda_prior: float = Field(
        default=0.0, ge=0, description="weight of the real images' mean squared whitened code (Departure)"
    )
    photometric_augment: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability of changing gain, gamma, noise of the encoder's input, target unchanged (Departure)",
    )
    precision: Precision = Field(default="auto", description=PRECISION)


class InversionSettings(Frozen):
    """Stage 3 [S sec. 3, M eq. 7 and 8]."""

    steps: int = Field(default=200, ge=0, description="optimisation steps; 0 = encoder only")
    choose: bool = Field(
        default=True,
        description="steps and stopping rule are chosen on validation (Departure); off: steps for every image",
    )
    choice_cases: Count = Field(
        default=150, description="validation images that steps and stopping rule are chosen on, at most"
    )
    learning_rate: Rate = 0.1
    space: Literal["w_plus", "whitened"] = Field(
        default="w_plus", description="whitened: per-w PCA of the mapping network (Departure)"
    )
    lambda_encoder: Weight = Field(default=0.1, description="lambda_2, weight of ||w - E(G(w))||^2 [S]")
    lambda_pixel: Weight = Field(default=0.001, description="lambda_3, weight of the squared pixel distance [S]")
    lambda_pixel_mri: float | None = Field(
        default=None, ge=0, description="lambda_3 for `segment --modality mri`; None: lambda_pixel; a CT model 1e-5 [S]"
    )
    lambda_prior: Weight = Field(
        default=0.0, description="weight of the mean squared whitened code, a Gaussian prior (Departure)"
    )
    lambda_pose: float | None = Field(
        default=None, ge=0, description="weight of the pose's mean square, in deviations; None: no pose (Departure)"
    )
    lambda_tone: float | None = Field(
        default=None, ge=0, description="weight of the tone's mean square, in deviations; None: no tone (Departure)"
    )
    reduction: Literal["sum", "mean"] = Field(
        default="sum", description="of the two squared norms; the text says norms, so sum [S]"
    )
    detach_encoder_term: bool = Field(default=False, description="[C] detaches E(G(w)); Eq. 7 does not")
    optimise_noise: bool = Field(default=False, description="optimise the noise maps too [C]")
    noise_regulariser: Weight = Field(
        default=1e5, description="weight of StyleGAN2's noise autocorrelation term, if noise is optimised"
    )
    ramp_up: float = Field(default=0.0, ge=0, le=1, description="share of steps with rising learning rate [C] 0.05")
    ramp_down: float = Field(
        default=0.0, ge=0, le=1, description="share of steps with cosine-falling learning rate [C] 0.25"
    )
    batch: int = Field(default=64, ge=1, description="images optimised together")
    precision: Precision = Field(default="auto", description="auto: what is faster on the machine that answers")

    @property
    def has_ramps(self) -> bool:
        """Whether the learning rate rises or falls, so that the first steps of a long run are no shorter run."""
        return self.ramp_up > 0 or self.ramp_down > 0


class BaselineSettings(Frozen):
    """Supervised and semi-supervised rivals [S sec. 5]."""

    network: Literal["unet", "deeplabv2"] = "unet"
    widths: tuple[Count, ...] = Field(
        default=(32, 64, 128, 256), description="channels of the U-Net's levels, or of the narrow trunk's stages"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of the U-Net's features, in training; 0: not used")
    trunk: Literal["resnet101", "narrow"] = Field(
        default="resnet101", description="of DeepLabV2; narrow: a small residual trunk for 16 to 128 px"
    )
    trunk_weights: Path | None = Field(
        default=None, description="published ImageNet weights of ResNet-101, a file; None: trained from the start"
    )
    images: Count = Field(default=160_000, description="10k steps of 16 [S]")
    batch: int = Field(default=16, ge=2)
    unlabelled_batch: int = Field(default=8, ge=1, description="unlabelled images beside each labelled batch [S]")
    optimiser: Literal["adam", "sgd"] = Field(
        default="adam", description="sgd: Nesterov momentum 0.99 and weight decay 3e-5, as in nnU-Net"
    )
    learning_rate: Rate = 0.00025
    clip_norm: float | None = Field(default=None, gt=0, description="largest norm of a gradient; nnU-Net 12")
    schedule: Literal["constant", "poly"] = Field(
        default="constant", description="poly: falls to 0 as (1 - progress)^0.9, as in DeepLab and nnU-Net"
    )
    schedule_images: int | None = Field(default=None, ge=1, description="where schedule and ramps end; None: images")
    intensity_augment: bool | Literal["nnunet"] = Field(
        default=False,
        description="gamma, contrast, brightness, noise, blur (unet-strong); nnunet: with its chances and ranges, and "
        "low resolution and inverted gamma",
    )
    members: int = Field(
        default=1, ge=1, description="networks of other seeds, trained side by side, whose mean answers"
    )
    test_time_flips: bool = Field(default=False, description="answer with the mean over an image and its mirror image")
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="of a teacher that averages its student, per step")
    consistency_weight: float = Field(
        default=1.0, ge=0, description="of the agreement of two predictions, after the ramp-up"
    )
    ramp_up_share: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="share of training over which consistency_weight rises, as exp(-5 (1 - t)^2)",
    )
    discriminator_width: int = Field(default=64, ge=2, description="first channels of advssl's and gct's detectors")
    confidence_threshold: float = Field(
        default=0.95, ge=0, le=1, description="least probability of a pixel's class to be learnt from (unimatch)"
    )
    colour_changes: bool = Field(
        default=False, description="hue and saturation of strong views of colour images change, too (unimatch)"
    )
    precision: Precision = Field(default="auto", description=PRECISION)


class StudentSettings(Frozen):
    """A network trained on pairs drawn from our generator; its training itself is set under ``baseline``."""

    pool_images: int = Field(default=12_800, ge=1, description="pairs drawn from the generator, once")
    pool_batch: int = Field(default=128, ge=2, description="pairs drawn and judged together")
    truncation: float = Field(default=1.0, gt=0, le=1, description="below 1 pulls w towards its mean: tamer pairs")
    style_mixing: float = Field(
        default=0.0, ge=0, le=1, description="how often a pair's finer layers have another latent; in gan training 0.9"
    )
    keep_share: float = Field(
        default=0.8, gt=0, le=1, description="share of every pool batch that is kept: the most certain label maps"
    )
    real_share: float = Field(default=0.25, ge=0, le=1, description="share of real labelled images in training")
    last_real_share: float | None = Field(
        default=None, ge=0, le=1, description="what real_share becomes evenly until the end; None: it stays"
    )
    unlabelled: bool = Field(
        default=False, description="learns from unlabelled images too, as method unimatch does, where there are any"
    )
    strong_affine: bool = Field(
        default=False, description="strong views of unlabelled images are zoomed, shifted and turned, too (Departure)"
    )
    answer_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of the student in semgan-student's answer; None: chosen on validation, without one 0.5",
    )
    guide_weight: float = Field(
        default=1.0,
        ge=0,
        description="weight of the student's answer in semgan-student's inversion; 0: the image alone (Departure)",
    )


class RunSettings(Frozen):
    log_every_images: Count = Field(default=640, description="images between lines of metrics.jsonl")
    checkpoint_every_images: Count = Field(
        default=16_000, description="images between checkpoints: the most that a kill can lose"
    )
    preview_every_images: int | None = Field(
        default=16_000, ge=1, description="images between sample grids, validation scores; None: never, nor at the end"
    )
    validation_cases: Count = Field(default=75, description="validation images scored at a preview, at most")


class Settings(Frozen):
    """Everything a run needs besides the dataset and where to write."""

    recipe: str = "default"
    method: str = "semgan"
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="of everything random in training")
    labels: int | None = Field(
        default=None, ge=1, description="size of the labelled list; None: every labelled training case"
    )
    split_seed: int = Field(default=0, ge=0, le=MOST_SEED, description="which labelled list of that size")
    classes: tuple[str, ...] = Field(default=("background", "foreground"), description="set from the dataset")
    metric: Metric = "dice"
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, ...")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of torch; None: torch decides")
    preprocessing: Preprocessing = Preprocessing()
    modalities: tuple[Modality, ...] = Field(
        default=(), description="further preprocessing rules of the model, chosen by `segment --modality`"
    )
    data: DataSettings = DataSettings()
    generator: GeneratorSettings = GeneratorSettings()
    critics: CriticSettings = CriticSettings()
    gan: GanSettings = GanSettings()
    perceptual: PerceptualSettings = PerceptualSettings()
    encoder: EncoderSettings = EncoderSettings()
    inversion: InversionSettings = InversionSettings()
    baseline: BaselineSettings = BaselineSettings()
    student: StudentSettings = StudentSettings()
    run: RunSettings = RunSettings()
