"""Sliding windows, restoring to the input's grid, the predictor."""
