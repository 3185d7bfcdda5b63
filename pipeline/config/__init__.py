"""Configuration: read from YAML strictly, one section per stage, all problems explained at once."""
