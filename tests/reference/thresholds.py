"""Numbers to compare activations with, in gaps of what the reference observed.

Nothing then hangs on the last bits of an activation, which another batch computes otherwise.
"""

from __future__ import annotations

import numpy as np

from hookql.language import ast
from hookql.language.parser import parse
from tests.reference import sites
from tests.reference.captures import tokens
from tests.reference.models import Subject
from tests.reference.values import DISCRETE, Array


def observed(subject: Subject, expression: str, places: str) -> tuple[Array, float]:
    """All values of an expression at all tokens of some sites, sorted, and their largest error."""
    key = ("observed", expression, places)
    if key not in subject.cache:
        (capture,) = parse(f"capture mean(({expression})) from {places}").statements
        assert isinstance(capture, ast.Capture)
        node = capture.statistics[0].arguments[0].value  # type: ignore[index]
        arrays, largest = [np.zeros(0)], 0.0
        for site in sites.sites(subject, capture.sites, capture.excepts):
            for token in tokens(subject, site, [node]):
                value = token.value(node)
                if value is not None:
                    arrays.append(np.ravel(value.array))
                    errors = value.err[np.isfinite(value.err)]
                    largest = max(largest, float(errors.max(initial=0)))
        values = np.concatenate(arrays)
        subject.cache[key] = np.unique(values[np.isfinite(values)]), largest
    found: tuple[Array, float] = subject.cache[key]
    return found


def threshold(subject: Subject, expression: str, places: str, share: float) -> str:
    """A number, as a literal, that about that share of the values is below, in the widest gap."""
    values, err = observed(subject, expression, places)
    if not len(values):
        return "0"
    at = int(share * len(values))
    window = values[max(0, at - len(values) // 8) : at + len(values) // 8 + 2]
    if len(window) > 1:
        widest = int(np.argmax(np.diff(window)))
        low, high = float(window[widest]), float(window[widest + 1])
        if high - low > 6 * DISCRETE * err:
            return between(low, high)
    return between(float(values[-1]) + 1, float(values[-1]) + 2 + abs(float(values[-1])))


def between(low: float, high: float) -> str:
    """The shortest literal in the middle half of an interval."""
    middle, room = (low + high) / 2, (high - low) / 4
    for digits in range(1, 17):
        text = f"{middle:.{digits}g}"
        if abs(float(text) - middle) <= room:
            return text
    return repr(middle)
