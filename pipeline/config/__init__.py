"""Configuration: read from YAML strictly, one section per stage, all problems explained at once."""

from pipeline.config.load_config import json_schema, load_config, to_yaml
from pipeline.config.pipeline_config import PipelineConfig, value_at

__all__ = ["PipelineConfig", "json_schema", "load_config", "to_yaml", "value_at"]
