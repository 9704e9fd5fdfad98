"""The rules of the optimiser: each leaves out work and changes no number."""
