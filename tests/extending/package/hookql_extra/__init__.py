"""A small package of pieces for HookQL, one of each kind, which tests install."""
