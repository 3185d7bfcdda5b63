"""Evaluation: label maps scored against references, and runs compared."""
