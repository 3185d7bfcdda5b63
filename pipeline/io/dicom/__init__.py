"""DICOM: single files, series as volumes, and whose they are."""
