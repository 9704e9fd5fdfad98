"""Models: loading, path patterns, ports, the probe."""
