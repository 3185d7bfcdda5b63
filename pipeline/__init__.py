"""segpipe: from 3D scans with label maps to a validated, deployable segmentation model."""

__version__ = "0.1.0"
