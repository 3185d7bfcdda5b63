"""Layouts that people keep data in: read into a manifest (`init`), written back (`convert`)."""

from pipeline.layouts.convert_dataset import convert
from pipeline.layouts.folders.file_roles import Chosen
from pipeline.layouts.init_dataset import init

__all__ = ["Chosen", "convert", "init"]
