"""Overlap, surface and lesion metrics and their summary; numpy and scipy only."""
