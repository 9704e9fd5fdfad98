"""Query text to meaning: parse, resolve, format. Imports no torch."""
