"""Section `package`: what is shipped, and what only the authors of a model can say about it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.base.strict_model import StrictModel

ExportKind = Literal["onnx", "torchscript", "openvino"]


class CodedConcept(StrictModel):
    """A coded concept, for instance SCT 10200004 "Liver"."""

    value: str
    scheme: str = "SCT"
    """Designator of the coding scheme; SCT is SNOMED CT."""
    meaning: str


class LabelConfig(StrictModel):
    """How one structure is shown and coded; what is left out gets a colour by its place and the code for tissue."""

    color: tuple[int, int, int] | None = None
    """Red, green, blue, 0 to 255."""
    category: CodedConcept | None = None
    """SNOMED CT category for DICOM-SEG (default: Tissue, or Anatomical structure where a type is given)."""
    type: CodedConcept | None = None
    """SNOMED CT concept for DICOM-SEG, for instance {value: "10200004", meaning: Liver}."""


class PackageConfig(StrictModel):
    """What is shipped, and what only its authors can say about it."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the model; null is the data set's name."""
    version: str = Field(default="1.0.0", pattern=r"^\d+\.\d+\.\d+([-+.][0-9A-Za-z.-]+)?$")
    """Semantic version of the model."""
    description: str = ""
    """One paragraph for the model card."""
    intended_use: str = "Research on images like those of the training data. Not for clinical use."
    """What the model is for."""
    authors: str = ""
    """Who made it, and how to reach them."""
    licence: str = ""
    """Licence of the weights, for instance CC-BY-4.0."""
    references: tuple[str, ...] = ()
    """Papers and data sets to cite."""
    labels: dict[str, LabelConfig] = Field(default={})
    """Structure name to its colour and SNOMED CT codes."""
    output_slug: str = Field(default="segmentation", pattern=r"^[a-z0-9][a-z0-9-]*$")
    """grand-challenge socket that segmentations are written to: /output/images/SLUG/."""
    exports: tuple[ExportKind, ...] = ()
    """Other forms of the networks to ship, each checked on a real case first; the slim image needs onnx."""
    bundle: bool | Literal["auto"] = "auto"
    """Make the package a MONAI bundle too; auto: where it has that form (a unet, one label value per structure)."""
    zip: bool = False
    """Write the package as one zip file too."""
