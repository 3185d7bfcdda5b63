"""The package as a MONAI bundle."""
