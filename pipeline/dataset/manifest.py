"""The manifest: which cases a data set has, with labels, licence, digests and splits.

Its format is written down in `data_manifests/README.md`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.base.errors import DataError, Problem, did_you_mean, problem_list
from pipeline.base.files import read_json, write_json
from pipeline.base.strict_model import StrictModel
from pipeline.dataset.loaded_cases import Channel

FORMAT = "segpipe-manifest/1"
MOST_OVERLAPPING = 62
"""Structures of one manifest that may overlap: a bit each in 64, with one to spare for what is ignored."""


def unusable_id(value: str) -> str:
    """Why an id cannot name a file; empty where it can."""
    if value in {".", ".."} or any(letter in "/\\" or ord(letter) < 32 for letter in value):
        return f"the id {value!r} must be usable as the name of a file: no slash, no control character"
    return ""


class ManifestCase(StrictModel):
    """One case. Paths are relative to the data root."""

    id: str = Field(min_length=1)
    subject: str | None = None
    """Cases of one subject stay in one fold; None: the case is its own subject."""
    images: tuple[str, ...] = Field(min_length=1)
    """One path per channel, or a single path of an image that holds all channels."""
    label: str | None = None
    split: Literal["training", "testing"] = "training"
    fold: int | None = Field(default=None, ge=0)
    """The fold in which this case is validated."""
    sha256: dict[str, str] = {}
    voxel_digest: dict[str, str] = {}
    extra: dict[str, Any] = {}
    """Further columns, for instance site or scanner."""

    @field_validator("id")
    @classmethod
    def _names_a_file(cls, value: str) -> str:
        if fault := unusable_id(value):
            raise ValueError(fault)
        return value


class Manifest(StrictModel):
    """A data set. Label values may be any, with any gaps; a structure may be several values (a region)."""

    format: Literal["segpipe-manifest/1"] = "segpipe-manifest/1"
    name: str
    description: str = ""
    licence: str = ""
    source: str = ""
    channels: tuple[Channel, ...] = Field(min_length=1)
    labels: dict[str, int | tuple[int, ...]] = {}
    """Structure name to label value or values, background left out, in output order; {} for scans without labels."""
    ignore_label: int | None = None
    overlapping: bool = False
    root: str | None = None
    """Where paths start, relative to the manifest's folder; None: the manifest's folder."""
    cases: tuple[ManifestCase, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        faults = [f"the case id {i!r} stands {n} times" for i, n in Counter(c.id for c in self.cases).items() if n > 1]
        if not self.labels and any(case.label for case in self.cases):
            faults.append('labels is empty, but cases have label files; declare them, e.g. {"liver": 1}')
        values = [value for region in self.structures.values() for value in region]
        if not self.overlapping:
            faults += [f"label value {v} belongs to {n} structures; set overlapping: true for regions that overlap"
                       for v, n in Counter(values).items() if n > 1]  # fmt: skip
        if 0 in values:
            faults.append("label value 0 is background and cannot be a structure")
        if any(value < 0 for value in values):
            faults.append("label values cannot be negative")
        if self.overlapping and len(self.labels) > MOST_OVERLAPPING:
            faults.append(f"{len(self.labels)} structures overlap; at most {MOST_OVERLAPPING} can (one bit each)")
        if self.ignore_label is not None and self.ignore_label in values:
            faults.append(f"ignore_label {self.ignore_label} is a structure too")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def structures(self) -> dict[str, tuple[int, ...]]:
        """Structure name to its label values."""
        return {name: (value,) if isinstance(value, int) else tuple(value) for name, value in self.labels.items()}


def read_manifest(path: Path) -> Manifest:
    """Reads and validates a manifest; a DataError lists every fault with its place in the file."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(
            f'{path}: not a segpipe manifest (no "format": "{FORMAT}"); `segpipe init FOLDER -o CONFIG` writes one'
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        problems = [Problem(_place(content, details["loc"]), _what(details)) for details in error.errors()]
        raise DataError(problem_list(str(path), problems)) from None


def data_root(manifest: Path, root: Path | None = None) -> Path:
    """Return the folder that the paths of a manifest's cases start from, whether or not it exists.

    Args:
        manifest: The manifest's file.
        root: The folder that the configuration names (`data.root`), if any; else the manifest's own root counts,
            else the manifest's folder.
    """
    own = read_manifest(manifest).root
    return root or (manifest.parent / own if own else manifest.parent)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes a manifest without the keys that say nothing."""
    write_json(path, {"format": FORMAT} | manifest.model_dump(mode="json", exclude_defaults=True))


def _place(content: Any, loc: tuple[Any, ...]) -> str:
    """A JSON path such as cases[3].label, with the case's id where there is one."""
    text, case = "", ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    if len(loc) > 1 and loc[0] == "cases" and isinstance(loc[1], int) and isinstance(content["cases"][loc[1]], dict):
        case = f" (case {content['cases'][loc[1]].get('id', '?')})"
    return (text.lstrip(".") or "manifest") + case


def _what(details: Any) -> str:
    if details["type"] == "extra_forbidden":
        model = ManifestCase if details["loc"][0] == "cases" else Manifest
        return f"unknown key; {did_you_mean(str(details['loc'][-1]), sorted(model.model_fields))}"
    text = details["msg"].removeprefix("Value error, ")
    return text[0].lower() + text[1:]
