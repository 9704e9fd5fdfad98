"""Runs from their preparation to their files."""
