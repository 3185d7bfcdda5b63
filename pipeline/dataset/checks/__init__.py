"""Checks of a data set: every problem of every case, with its fix."""
