"""Labelled results: trees, files, tables."""
