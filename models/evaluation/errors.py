"""The error of this room."""

from ...errors import BeamsplitterError


class EvaluationError(BeamsplitterError, ValueError):
    """Nothing can be scored so; the message says why, and what to do."""
