"""Procedural pictures with exact masks: faces and chests, each with shifted domains. The embedded default data set.
Abdomens are volumes, seen by CT and MRI and written as published files of both: `write_abdomens`.

Nothing is read and nothing is random beyond the seed: the same (family, seed, domain, size) gives the same picture
and mask, but for rounding on other machines. The shape comes from the family and seed alone, so a seed has
the same mask in every domain (``rotated`` turns picture and mask).
"""

from __future__ import annotations

from semgan.data.phantoms.catalogue import CLASSES, DOMAINS, FAMILIES, phantom
from semgan.data.phantoms.write import write_phantom_dataset
from semgan.data.phantoms.write_abdomens import write_abdomens

__all__ = ["CLASSES", "DOMAINS", "FAMILIES", "phantom", "write_abdomens", "write_phantom_dataset"]
