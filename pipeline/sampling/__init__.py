"""Sampling: the patch store, and patches drawn from it."""
