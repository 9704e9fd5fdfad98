"""`python -m benchmarks.peers`: HookQL beside its peers and hooks by hand."""
