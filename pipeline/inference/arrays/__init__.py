"""Array operations that blending needs, on numpy or torch."""
