"""Postprocessing of label maps: holes filled, components removed, and which of it helps."""
