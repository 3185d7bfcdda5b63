"""Prediction from a package, and everything that offers it to others."""
