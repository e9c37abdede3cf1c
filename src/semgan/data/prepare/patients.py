"""Which volumes are of one patient, by the PatientID of DICOM series, of which nothing is shown or kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from semgan.data.folder import GROUP_COLUMNS
from semgan.data.prepare.inventory import Inventory
from semgan.data.studies import Study

_SHOWN = 5


def name_patients(inventory: Inventory, studies: Mapping[str, Study], *, by_id: bool) -> dict[str, str]:
    """``{stem: patient}`` of every volume: as the manifest says, else its own stem.

    by_id: volumes of one PatientID are one patient, named by the manifest or after its first volume. Where volumes of
    one PatientID stay apart without the manifest saying so, and where a patient is on both sides of a test, the
    inventory gets a warning; where no volume has a PatientID, a problem.
    """
    given = _given(inventory)
    patients = {stem: given.get(stem, stem) for stem in studies}
    groups = _by_id(studies)
    with_id = sum(len(stems) for stems in groups)
    if by_id and not with_id:
        inventory.problems.append(
            "--group-by-patient reads PatientID, and no volume here is a DICOM series with one; name the patients in a "
            "--manifest with the columns stem and group."
        )
    if by_id and 0 < with_id < len(studies):
        inventory.warnings.append(
            f"{len(studies) - with_id} of {len(studies)} volumes have no PatientID; each counts as a patient of its "
            "own, unless the manifest names one."
        )
    for stems in groups if by_id else ():
        name = next((given[stem] for stem in stems if stem in given), stems[0])
        patients |= {stem: given.get(stem, name) for stem in stems}
    if len(groups) == 1 and with_id > 2 and not given:
        inventory.warnings.append(
            f"All {with_id} DICOM series have one PatientID, as anonymised exports often do, and count as "
            f"{'one patient' if by_id else 'patients of their own'}. If that is wrong, name the patients in a "
            "--manifest with the columns stem and group."
        )
    else:
        _warn(inventory, groups, patients, given)
    return patients


def _given(inventory: Inventory) -> dict[str, str]:
    """The patients that the manifest names."""
    named = {
        stem: next((row[name] for name in GROUP_COLUMNS if row.get(name)), "")
        for stem, row in inventory.columns.items()
    }
    return {stem: name for stem, name in named.items() if name}


def _by_id(studies: Mapping[str, Study]) -> list[list[str]]:
    """The stems of every PatientID, in order."""
    groups: dict[str, list[str]] = defaultdict(list)
    for stem, study in sorted(studies.items()):
        if study.series is not None and study.series.patient is not None:
            groups[study.series.patient].append(stem)
    return list(groups.values())


def _warn(
    inventory: Inventory, groups: list[list[str]], patients: Mapping[str, str], given: Mapping[str, str]
) -> None:
    tests = {source.stem for source in inventory.sources if source.folder == "imagesTs"}
    sides = [([one for one in stems if one not in tests], [one for one in stems if one in tests]) for stems in groups]
    both = [[trained[0], tested[0]] for trained, tested in sides if trained and tested]
    if both:
        inventory.warnings.append(
            f"{len(both)} patient(s) by PatientID are trained on, with or without masks, and tested on: "
            f"{_listed(both)}. Scores on them say nothing about new patients; move their volumes to one side."
        )
    apart = [
        stems
        for stems in groups
        if len({patients[stem] for stem in stems}) > 1 and any(stem not in given for stem in stems)
    ]
    if apart:
        inventory.warnings.append(
            f"{len(apart)} patient(s) by PatientID have several series, which count as several patients: "
            f"{_listed(apart)}. Training and validation may share a patient; give --group-by-patient, or a --manifest "
            "with the columns stem and group."
        )


def _listed(groups: list[list[str]]) -> str:
    shown = "; ".join(" and ".join(stems[:_SHOWN]) for stems in groups[:_SHOWN])
    return shown + ("; ..." if len(groups) > _SHOWN else "")
