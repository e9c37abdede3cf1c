"""Which volumes a file, a folder or a tree of studies holds: NIfTI files and DICOM series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semgan.data.dicom import DICOM_SUFFIXES, Series, find_series, is_dicom
from semgan.data.dicom_pictures import Kind, dicom_kind
from semgan.data.nifti import nifti_suffix, read_geometry, read_volume
from semgan.data.readers import IMAGE_SUFFIXES
from semgan.data.tree import walk
from semgan.data.volumes import Volume

if TYPE_CHECKING:
    import numpy as np

_OF_VOLUMES = (Kind.slice, Kind.aside, Kind.mask, Kind.broken)
_NNUNET = "_0000"  # nnU-Net's names of a first channel


@dataclass(frozen=True)
class Study:
    """One volume to segment: a NIfTI file, or a DICOM series."""

    stem: str
    files: tuple[Path, ...]
    series: Series | None = None

    @property
    def place(self) -> Path:
        """The file, or the folder of the series, for messages."""
        return self.files[0] if self.series is None else self.series.folder

    def geometry(self) -> tuple[tuple[int, ...], np.ndarray]:
        """Shape and affine, by the headers alone. Raises as `read`."""
        return read_geometry(self.files[0]) if self.series is None else self.series.geometry()

    def read(self) -> Volume:
        return read_volume(self.files[0]) if self.series is None else self.series.read()


def holds_volumes(path: Path) -> bool:
    """Whether a path means volumes: a NIfTI or DICOM file, a folder of such, or of sub-folders of such.

    DICOM pictures are none (X-rays, photographs, ultrasound); secondary captures only where no slice is among them.
    Raises ValueError for a folder that holds pictures and volumes side by side.
    """
    if path.is_file():
        return _kind(path) in _OF_VOLUMES
    files = [file for file in sorted(path.iterdir()) if file.is_file()] if path.is_dir() else []
    kinds = {kind: file for file in reversed(files) if (kind := _kind(file)) is not None}  # the first file of each
    picture, volume = kinds.get(Kind.picture), kinds.get(Kind.slice)
    if picture is not None and volume is not None:
        raise ValueError(f"{path} holds pictures ({picture.name}) and volumes ({volume.name}); give one kind.")
    return picture is None and _tree_holds_volumes(path)


def find_studies(path: Path) -> tuple[list[Study], list[Path]]:
    """The volumes of a file or of a whole tree, sorted by stem, and the files that are none.

    A NIfTI file's stem is its name, a DICOM series' the name of its folder (and its SeriesNumber, where the folder
    holds several), after the names of the folders between: ``patient1/ct`` becomes ``patient1_ct``. Where all NIfTI
    files are named STEM_0000, the ending goes. Raises ValueError for two volumes of one stem.
    """
    found, others = [], []
    for folder, files in [(path.parent, [path])] if path.is_file() else walk(path):
        root = folder if path.is_file() else path
        within = folder.relative_to(root).parts
        niftis = [file for file in files if nifti_suffix(file)]
        found += [Study("_".join((*within, _stem(file))), (file,)) for file in niftis]
        slices = [file for file in files if file not in set(niftis) and _is_volume(file)]
        series, without = find_series(folder, slices)
        name = _stem(path) if path.is_file() else "_".join(within) or path.resolve().name
        found += _named(series, name)
        others += [file for file in files if file not in set(niftis) | set(slices)] + without
    found = _without_channel_number(found)
    twice = [stem for stem, count in Counter(study.stem for study in found).items() if count > 1]
    if twice:
        files = " and ".join(str(study.files[0]) for study in found if study.stem == twice[0])
        raise ValueError(f"{files} would both be written as {twice[0]}.nii.gz; rename one.")
    return sorted(found, key=lambda study: study.stem), others


def _tree_holds_volumes(root: Path) -> bool:
    """Whether a slice is among the files; without any, whether what may be of volumes is there and no picture."""
    found = set()
    for kind in (_kind(file) for _, files in walk(root) for file in files):
        if kind is Kind.slice:
            return True
        found.add(kind)
    return not found & {Kind.picture, Kind.screen} and bool(found & {*_OF_VOLUMES})


def _kind(file: Path) -> Kind | None:
    """NIfTI files count as slices, and image files as pictures; None for what is neither, nor DICOM."""
    if nifti_suffix(file):
        return Kind.slice
    return Kind.picture if file.suffix.lower() in IMAGE_SUFFIXES else dicom_kind(file)


def _is_volume(file: Path) -> bool:
    if nifti_suffix(file):
        return True
    return file.suffix.lower() not in IMAGE_SUFFIXES and is_dicom(file)


def _stem(file: Path) -> str:
    suffix = nifti_suffix(file) or (file.suffix if file.suffix.lower() in DICOM_SUFFIXES else "")
    return file.name.removesuffix(suffix)


def _named(series: Sequence[Series], name: str) -> list[Study]:
    if len(series) == 1:
        return [Study(name, series[0].files + series[0].broken, series[0])]
    numbers = [one.number for one in series]
    clear = None not in numbers and len(set(numbers)) == len(numbers)
    return [
        Study(f"{name}_{one.number if clear else place}", one.files + one.broken, one)
        for place, one in enumerate(series, start=1)
    ]


def _without_channel_number(studies: list[Study]) -> list[Study]:
    niftis = [study for study in studies if study.series is None]
    if not niftis or not all(study.stem.endswith(_NNUNET) for study in niftis):
        return studies
    return [
        Study(study.stem.removesuffix(_NNUNET), study.files) if study.series is None else study for study in studies
    ]
