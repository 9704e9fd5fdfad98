"""The function `softsign`."""

import hookql


@hookql.function("softsign")
def softsign(x, limit=1.0):
    """``x / (limit + |x|)``."""
    return x / (limit + x.abs())
