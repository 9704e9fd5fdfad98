"""Stored answers: `--store DIR` keeps what a query gave, and gives it again without the model."""

NUMERIC_VERSION = 1
"""Raised whenever HookQL works out other numbers for the same query, so that no old one is said."""
