"""Stored answers: found again, and never where something changed."""
