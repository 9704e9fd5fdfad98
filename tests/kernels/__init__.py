"""Tests of how fast and how exactly rows are reduced: autocast, compiled models, blocks."""
