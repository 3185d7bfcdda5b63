"""Layouts that people keep data in: read into a manifest (`init`), written back (`convert`)."""

from pipeline.layouts.export import convert
from pipeline.layouts.initialise import init
from pipeline.layouts.roles import Chosen

__all__ = ["Chosen", "convert", "init"]
