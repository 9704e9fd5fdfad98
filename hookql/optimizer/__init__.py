"""The optimiser: rules that leave out work which a query does not need. One rule a file."""
