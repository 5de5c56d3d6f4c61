"""What a package says of itself: `metadata.json`, and `README.md` with its front matter."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import yaml

from ..packages.metadata import FILE_NAME
from ..separators.base import TorchSeparator
from ..separators.by_name import SeparatorName, is_package, package_address
from ..separators.model_package import fetch_package

README_FILE = "README.md"
# By this one the models that Audacity can run are found.
AUDACITY_TAG = "audacity"
SHORT, LONG = 60, 280


@dataclass(frozen=True)
class Words:
    """Keys of `metadata.json` that are for people; None: as the separator says, or as usual."""

    name: str | None = None
    author: str | None = None
    short_description: str | None = None
    long_description: str | None = None
    domain_tags: list[str] | None = None
    tags: list[str] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Those that are not None."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def metadata_of(
    name: SeparatorName, separator: TorchSeparator, channels: int, words: Words
) -> dict[str, Any]:
    """The metadata of the package of a separator.

    Parameters
    ----------
    channels
        that it takes: of several, each stem has a label for each
    """
    lengths = separator.block_lengths
    return {
        **_usual_words(separator),
        **_own_words(name),
        **words.given,
        "effect_type": "waveform-to-waveform",
        "multichannel": channels > 1,
        "labels": labels_of(separator.stems, channels),
        "sample_rate": separator.sample_rate,
        "beamsplitter": {
            "stems": list(separator.stems),
            "block_seconds": separator.block_samples / separator.sample_rate,
            "context_seconds": separator.context_samples / separator.sample_rate,
            "overlap": separator.overlap,
            "block_lengths": [lengths.least, lengths.step] if lengths else None,
        },
    }


def labels_of(stems: Iterable[str], channels: int) -> list[str]:
    """A label for each channel of each stem; Audacity makes a mono track of each."""
    if channels == 1:
        return list(stems)
    sides = ("left", "right") if channels == 2 else range(1, channels + 1)
    return [f"{stem} {side}" for stem in stems for side in sides]


def model_card(
    metadata: dict[str, Any],
    model_files: Iterable[str],
    *,
    licence: str | None,
    runs_in_audacity: bool,
) -> str:
    """`README.md` of a package, with the front matter that the model hub reads.

    Parameters
    ----------
    metadata
        of the package
    model_files
        in it
    licence
        of the weights, as the hub calls it
    runs_in_audacity
        whether it is to be found by those who look for models for Audacity
    """
    gives_labels = metadata["effect_type"] == "waveform-to-labels"
    front = {
        "license": licence,
        "library_name": "beamsplitter",
        "pipeline_tag": "audio-classification" if gives_labels else "audio-to-audio",
        "tags": [AUDACITY_TAG] * runs_in_audacity + metadata["tags"],
    }
    shown = {key: value for key, value in front.items() if value}
    given = metadata["labels"] if gives_labels else metadata["beamsplitter"]["stems"]
    lines = [
        "---",
        yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {metadata['name']}",
        "",
        metadata["long_description"],
        "",
        f"- {'labels' if gives_labels else 'stems'}: {', '.join(given)}",
        f"- sample rate: {metadata['sample_rate']} Hz",
        f"- channels: {'several' if metadata['multichannel'] else 'one'}",
        f"- files: {', '.join(model_files)}",
        "",
        "```",
        f"beamsplitter {'label' if gives_labels else 'separate'} INPUT -o OUT "
        f"--{'model' if gives_labels else 'separator'} FOLDER",
        "```",
    ]
    return "\n".join(lines) + "\n"


def _usual_words(separator: TorchSeparator) -> dict[str, Any]:
    stems = ", ".join(separator.stems)
    return {
        "name": separator.name,
        "author": "",
        "short_description": f"Takes {stems} out of a mixture"[:SHORT],
        "long_description": f"{separator.name}, exported by beamsplitter: takes {stems} out of a "
        "mixture."[:LONG],
        "domain_tags": ["music"],
        "tags": ["separation"],
    }


def _own_words(name: SeparatorName) -> dict[str, Any]:
    """Those in the metadata of what was trained here."""
    if not is_package(name.name):
        return {}
    path = fetch_package(package_address(name.name)) / FILE_NAME
    own: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return {each.name: own[each.name] for each in fields(Words) if each.name in own}
