"""The statistic `range_of`; no torch is needed to know its name."""

import hookql


@hookql.statistic("range_of")
class Range:
    """The distance between the largest and the smallest value."""

    def __init__(self):
        self.low = self.high = None

    def update(self, rows):
        """Take in rows (n, *axes)."""
        self.join(rows.amin(0), rows.amax(0))

    def merge(self, other):
        """Take in another's."""
        self.join(other.low, other.high)

    def result(self):
        """Largest less smallest."""
        return self.high - self.low

    def join(self, low, high):
        """Widen the range."""
        self.low = low if self.low is None else self.low.minimum(low)
        self.high = high if self.high is None else self.high.maximum(high)
