"""Raw captures: the rows themselves, streamed to disk while the model runs."""
