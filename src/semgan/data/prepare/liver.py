"""Published abdominal scans with livers drawn in, and without: which files are what, and how their masks are read.

LiTS is CT: ``volume-N.nii`` with ``segmentation-N.nii`` of 1 liver and 2 tumour; by the paper (supplement section 4)
the tumour is background. CHAOS is MRI: dual-echo T1 as DICOM, masks as PNG with a grey value per organ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from semgan.data.dicom import read_series
from semgan.data.nifti import nifti_suffix, read_geometry, read_label_volume, read_volume
from semgan.data.prepare.inventory import Source
from semgan.data.prepare.raw import Finding, Layout
from semgan.data.readers import read_label
from semgan.data.volumes import Volume, axial_slices

LITS = re.compile(r"(test-)?(volume|segmentation)-(\d+)")
LITS_VALUES = {0, 1, 2}  # background, liver, tumour
LITS_LIVER = 1
CHAOS_LIVER = (55, 70)  # grey values; kidneys are 110 to 135 and 175 to 200, the spleen 240 to 255
CHAOS_PHASES = ("inphase", "outphase")


@dataclass(frozen=True)
class LitsScan:
    """A CT volume and its mask, None without."""

    volume: Path
    segmentation: Path | None
    modality: str = "ct"

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.volume,) if self.segmentation is None else (self.volume, self.segmentation)

    def look(self) -> tuple[int, tuple[str, ...]]:
        """Number of axial slices, and remarks, by the headers. Raises ValueError for a mask of another shape."""
        shape, affine = read_geometry(self.volume)
        remarks: tuple[str, ...] = ()
        if self.segmentation is not None:
            mask_shape, mask_affine = read_geometry(self.segmentation)
            if mask_shape != shape:
                sizes = [" x ".join(map(str, size)) for size in (mask_shape, shape)]
                raise ValueError(
                    f"{self.segmentation} has {sizes[0]} voxels and {self.volume} {sizes[1]}; they must be equal: "
                    "replace one."
                )
            if not np.allclose(mask_affine, affine, rtol=1e-3, atol=1e-3):
                remarks = (
                    f"{self.segmentation} says that it lies elsewhere than {self.volume.name}, as some of LiTS do; its "
                    "voxels are taken as the volume's.",
                )
        return axial_slices(shape, affine), remarks

    def read(self) -> tuple[Volume, np.ndarray | None]:
        """The volume, and the liver as uint8 0 and 1 in stored order. Raises ValueError for other values than LiTS'."""
        volume = read_volume(self.volume)
        if self.segmentation is None:
            return volume, None
        drawn = read_label_volume(self.segmentation).values
        others = sorted(set(np.unique(drawn).tolist()) - LITS_VALUES)
        if others:
            raise ValueError(
                f"{self.segmentation} holds the values {others[:10]}; LiTS has 0 background, 1 liver, 2 tumour. Is it "
                "another data set's mask?"
            )
        return volume, (drawn == LITS_LIVER).astype(np.uint8)


@dataclass(frozen=True)
class ChaosScan:
    """One phase of a dual-echo series, its files in the order of their numbers.

    masks:    PNG in the order of their numbers, the k-th drawn on the k-th file of ``in_phase``; none without
    """

    slices: tuple[Path, ...]
    in_phase: tuple[Path, ...]
    masks: tuple[Path, ...]
    modality: str = "mri"

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.slices, *self.masks)

    def look(self) -> tuple[int, tuple[str, ...]]:
        """Number of axial slices, and no remarks. Raises ValueError where slices and masks differ in number."""
        if self.masks and not len(self.masks) == len(self.slices) == len(self.in_phase):
            raise ValueError(
                f"{self.slices[0].parent} holds {len(self.slices)} slices, InPhase {len(self.in_phase)} and "
                f"{self.masks[0].parent} {len(self.masks)} masks; there must be as many of each: unpack the download "
                "again."
            )
        return len(self.slices), ()

    def read(self) -> tuple[Volume, np.ndarray | None]:
        """The volume in the order of position, and the liver as uint8 0 and 1 in the same order.

        Raises ValueError where the phases lie in different places, and for masks of another size.
        """
        volume = read_series(self.slices)
        if not self.masks:
            return volume, None
        drawn_on = volume if self.slices == self.in_phase else read_series(self.in_phase)
        off = np.abs(volume.affine - drawn_on.affine).max() > 0.1 * min(drawn_on.spacing_mm)
        if volume.values.shape != drawn_on.values.shape or off:
            raise ValueError(
                f"{self.slices[0].parent} lies elsewhere than {self.in_phase[0].parent}, on which the masks were "
                "drawn; take this patient out."
            )
        mask_of = dict(zip(self.in_phase, self.masks, strict=True))
        layers = [_liver(mask_of[file], volume) for file, _ in drawn_on.frames]
        return volume, np.stack(layers, axis=-1)


def _liver(mask: Path, volume: Volume) -> np.ndarray:
    """One mask's liver as uint8 ``[columns, rows]``."""
    grey = read_label(mask).T
    if grey.shape != volume.values.shape[:2]:
        sizes = [f"{columns}x{rows}" for columns, rows in (grey.shape, volume.values.shape[:2])]
        raise ValueError(f"{mask} is {sizes[0]} px and its slice {sizes[1]} px; they must be equal: replace it.")
    return ((grey >= CHAOS_LIVER[0]) & (grey <= CHAOS_LIVER[1])).astype(np.uint8)


def find_lits(files: Sequence[Path], *, is_test: bool) -> Finding:
    """``volume-0.nii`` and ``segmentation-0.nii``; with ``is_test`` ``test-volume-0.nii``; ``.nii.gz`` too."""
    finding = Finding()
    found: dict[str, dict[int, Path]] = {"volume": {}, "segmentation": {}}
    for file in files:
        match = LITS.fullmatch(file.name.removesuffix(nifti_suffix(file) or "no suffix"))
        if match is None or bool(match[1]) != is_test:
            continue
        finding.used.add(file)
        if found[match[2]].setdefault(int(match[3]), file) != file:
            finding.leave_out("second copies", 1)
    volumes, masks = found["volume"], found["segmentation"]
    if is_test:
        finding.leave_out("masks of test volumes", len(masks))
    else:
        finding.leave_out("volumes without mask", len(volumes.keys() - masks.keys()))
        finding.leave_out("masks without volume", len(masks.keys() - volumes.keys()))
        volumes = {number: file for number, file in volumes.items() if number in masks}
    for number, file in sorted(volumes.items()):
        name = f"lits-{'test-' if is_test else ''}{number:03d}"
        _add(finding, name, name, LitsScan(file, None if is_test else masks[number]))
    return finding


def _add(finding: Finding, stem: str, patient: str, scan: LitsScan | ChaosScan) -> None:
    finding.sources.append(Source(stem, "", scan.files[0], scan.files[1:], scan=scan))
    finding.columns[stem] = {"patient": patient, "modality": scan.modality}


def find_chaos(files: Sequence[Path], *, phase: str) -> Finding:
    """``MR/1/T1DUAL/DICOM_anon/InPhase/*.dcm`` (or OutPhase) and ``MR/1/T1DUAL/Ground/*.png``.

    phase: ``inphase`` or ``outphase``, whose files are claimed; the masks, which belong to both, by the first.
    """
    finding = Finding()
    folders: dict[Path, dict[str, list[Path]]] = {}
    for file in files:
        kind, folder = _place_in_chaos(file)
        if folder is not None:
            folders.setdefault(folder, {}).setdefault(kind, []).append(file)
    for folder, found in sorted(folders.items()):
        slices, in_phase, masks = (_by_number(found.get(kind, ())) for kind in (phase, "inphase", "ground"))
        finding.used |= {*slices, *(masks if phase == "inphase" else ())}
        patient = f"chaos-mr-{folder.parent.name}"
        stem = f"{patient}-{phase.removesuffix('phase')}"
        if not slices or stem in finding.columns:
            finding.leave_out("second copies", int(bool(slices)))
        elif not masks:
            finding.leave_out("series without masks", 1)
        elif not in_phase:
            finding.problems.append(f"{folder} has masks and no InPhase series, on which they are drawn; add it.")
        else:
            _add(finding, stem, patient, ChaosScan(slices, in_phase, masks))
    return finding


def _place_in_chaos(file: Path) -> tuple[str, Path | None]:
    """inphase, outphase or ground, and the folder T1DUAL of the patient; None for all other files."""
    parts = [part.lower() for part in file.parts[:-1]]
    if file.suffix.lower() == ".dcm" and parts[-3:-1] == ["t1dual", "dicom_anon"] and parts[-1] in CHAOS_PHASES:
        return parts[-1], file.parents[2]
    if file.suffix.lower() == ".png" and parts[-2:] == ["t1dual", "ground"]:
        return "ground", file.parents[1]
    return "", None


def _by_number(files: Sequence[Path]) -> tuple[Path, ...]:
    """In the order of all numbers in their names: 2 before 10."""
    return tuple(sorted(files, key=lambda file: ([int(number) for number in re.findall(r"\d+", file.stem)], file.name)))


LAYOUTS = (
    Layout("lits", "LiTS (volume-0.nii, segmentation-0.nii)", "train", partial(find_lits, is_test=False)),
    Layout("lits-test", "LiTS test volumes (test-volume-0.nii)", "unlabelled", partial(find_lits, is_test=True)),
    Layout(
        "chaos-out",
        "CHAOS T1 opposed phase (MR/1/T1DUAL/DICOM_anon/OutPhase)",
        "test",
        partial(find_chaos, phase="outphase"),
    ),
    Layout(
        "chaos-in",
        "CHAOS T1 in phase (MR/1/T1DUAL/DICOM_anon/InPhase; T1DUAL/Ground)",
        "test",
        partial(find_chaos, phase="inphase"),
    ),
)
