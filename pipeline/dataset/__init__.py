"""Data sets: manifest, cases, labels, folds and fingerprint."""
