"""A run from its preparation to its files: what `execute` is made of."""
