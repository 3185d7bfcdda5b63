"""Preprocessing: one image onto the planned grid, cropped and normalised."""
