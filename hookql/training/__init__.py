"""Raw rows as batches to train on: `training_batches`."""
