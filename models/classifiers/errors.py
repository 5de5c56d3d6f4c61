"""What is wrong with labels, features or settings of a classifier."""

from ...errors import BeamsplitterError


class ClassifierError(BeamsplitterError):
    """A classifier that can't be trained or used; the message says why and what to do."""
