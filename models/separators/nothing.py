"""The separator of jobs that separate nothing: features, labels and plots of the mixture."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from .base import Description, Member
from .options import parse_options

# Real audio on either side of a part, which most features of its frames do with.
CONTEXT_S = 1.0


class NoOptions(BaseModel):
    """There is nothing to choose."""

    model_config = ConfigDict(extra="forbid")


def describe(_name: str, options: Mapping[str, object]) -> Description:
    """What is known of it: it has no stems."""
    parse_options(NoOptions, options)
    return Description((), context_s=CONTEXT_S, sums_to_mixture=True)


def load(_name: str, _options: Mapping[str, object]) -> tuple[Member, ...]:
    """No members."""
    return ()
