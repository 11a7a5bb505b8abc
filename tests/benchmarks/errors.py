"""Why something could not be measured."""

from __future__ import annotations


class CannotMeasure(Exception):
    """A measurement did not take place; the text says why. The others go on."""
