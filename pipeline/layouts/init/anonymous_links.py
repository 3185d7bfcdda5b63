"""Links in place of folders whose names identify patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.layouts.dataset_listing import DatasetListing


def link_images(found: DatasetListing, links: Path) -> DatasetListing:
    """`found` with its images behind links named by case, since the folders' own names identify persons."""
    links.mkdir(parents=True, exist_ok=True)
    cases = []
    for case in found.cases:
        link = links / case.id
        link.unlink(missing_ok=True)
        link.symlink_to(case.images[0], target_is_directory=True)
        cases.append(replace(case, images=(link,)))
    note = f"folder names carry names or ids of patients: the manifest goes by the links in {links.name}/ instead"
    return replace(found, folder=links, cases=tuple(cases), notes=(*found.notes, note))
