"""The steps of the graph, for pipelines of one's own as for that of a job."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .fan_out import CoGroupTracks as CoGroupTracks
    from .feature_settings import FeatureSetSettings as FeatureSetSettings
    from .features import TakeFeatures as TakeFeatures
    from .loading import LoadAudio as LoadAudio
    from .loading import LoadBinary as LoadBinary
    from .plots import GetSpec as GetSpec
    from .plots import SpecToPlot as SpecToPlot
    from .plots import UploadPlots as UploadPlots
    from .publishing import EncodeStems as EncodeStems
    from .publishing import PublishTrack as PublishTrack
    from .records import Track as Track
    from .reference_tracks import find_references as find_references
    from .report import MakeReport as MakeReport
    from .reporting import message_of as message_of
    from .reporting import path_messages as path_messages
    from .scoring import ScoreTracks as ScoreTracks
    from .scoring_settings import EvaluationSettings as EvaluationSettings
    from .separation import FilterNearestNeighbors as FilterNearestNeighbors
    from .separation import GetMagnitude as GetMagnitude
    from .separation import GetSoftMask as GetSoftMask
    from .separation import GetSTFT as GetSTFT
    from .separation import InverseSTFT as InverseSTFT
    from .separation import SubtractNearest as SubtractNearest
    from .settings import PlotSettings as PlotSettings
    from .settings import SplitSettings as SplitSettings
    from .settings import StemSettings as StemSettings
    from .shards import PrepareShards as PrepareShards
    from .stem_tracks import list_stem_tracks as list_stem_tracks

# Much of the package needs none of these, and Beam takes a second to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "fan_out": ["CoGroupTracks"],
        "feature_settings": ["FeatureSetSettings"],
        "features": ["TakeFeatures"],
        "loading": ["LoadAudio", "LoadBinary"],
        "plots": ["GetSpec", "SpecToPlot", "UploadPlots"],
        "publishing": ["EncodeStems", "PublishTrack"],
        "records": ["Track"],
        "reference_tracks": ["find_references"],
        "report": ["MakeReport"],
        "reporting": ["message_of", "path_messages"],
        "separation": [
            "FilterNearestNeighbors",
            "GetMagnitude",
            "GetSTFT",
            "GetSoftMask",
            "InverseSTFT",
            "SubtractNearest",
        ],
        "scoring": ["ScoreTracks"],
        "scoring_settings": ["EvaluationSettings"],
        "settings": ["PlotSettings", "SplitSettings", "StemSettings"],
        "shards": ["PrepareShards"],
        "stem_tracks": ["list_stem_tracks"],
    },
)
