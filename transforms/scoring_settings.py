"""How a dataset is scored."""

from dataclasses import dataclass, field

from ..models.evaluation.measures import ScoringSettings
from ..models.separators.by_name import SeparatorName


@dataclass(frozen=True)
class EvaluationSettings:
    """All that decides on scores but the files.

    Attributes
    ----------
    scoring
        which measures, of which frames
    separators
        what makes the estimates, by the name of the system; systems without one have files
    names
        of the separators' stems: theirs to those of the tracks
    shards
        where the folder of `beamsplitter prepare` lies, if the references are of it
    device
        of models
    part_seconds
        longest part that is separated at once
    pictures
        draw the scores of each track over time
    """

    scoring: ScoringSettings
    separators: dict[str, SeparatorName] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    shards: str = ""
    device: str = "auto"
    part_seconds: float = 300.0
    pictures: bool = False
