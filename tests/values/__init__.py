"""Raw values: every row against what a plain hook sees."""
