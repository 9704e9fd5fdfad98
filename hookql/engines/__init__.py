"""Running a plan over batches."""
