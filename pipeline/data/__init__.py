"""Images and labels: reading, geometry, checking, conforming, storing, sampling, augmenting."""
