"""The column `odd_id`."""

import hookql


@hookql.column("odd_id", "truth")
def odd_id(batch):
    """Whether the token's id is odd."""
    return batch.ids % 2 == 1
