"""The one exception that a detector raises."""

from __future__ import annotations

__all__ = ["DetectorError"]


class DetectorError(ValueError):
    """A detector was given arrays or options it cannot use; the text names the argument and the way to mend
    it.

    Thin data (no events, no samples, a short history) is never an error: it gives evidence whose ``defined``
    is False or whose p-value is 1. This error means that the *caller* is wrong: NaN, negative counts, shapes
    that disagree.
    """
