"""Analyses: a model, data and several queries, written down in one file."""

from hookql.configs.analysis import Analysis
from hookql.configs.json_schema import json_schema
from hookql.configs.reading import is_config

__all__ = ["Analysis", "is_config", "json_schema"]
