"""A slow reference of the whole language, and a maker of queries to hold the engine against it.

Written from docs/language.md alone, in plain NumPy and Python, one token at a time. It shares
nothing with the engine: of hookql it imports the parser and the syntax tree, no more. `compare`
alone knows what a result looks like.
"""
