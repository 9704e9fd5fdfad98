"""Killing runs, and what is left of them."""
