"""Live binding: a query that looks on while somebody else runs the model."""
