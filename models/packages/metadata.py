"""The metadata document of a model package.

The rules are those of audacitorch (github.com/hugofloresgarcia/audacitorch): its JSON schema, its
README, and the reader in Audacity. They don't agree: what one of them allows can be read, what is
published has to satisfy them all.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ...validation import problems_of
from ..documents import read_document
from ..separators.base import ModelError

FILE_NAME = "metadata.json"
MAXIMUM_RATE = 384_000

Domain = Literal["music", "environmental", "speech", "other"]
EffectType = Literal["waveform-to-waveform", "waveform-to-labels"]


def _a_number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


def _all_different(tags: list[str]) -> list[str]:
    if len(set(tags)) < len(tags):
        raise ValueError("a tag is there twice")
    return tags


class Original(BaseModel):
    """How that is run which a package was made of; Audacity does not look at it.

    Of a classifier only `block_seconds` is told, which are a multiple of an excerpt's.
    """

    model_config = ConfigDict(frozen=True)

    stems: tuple[str, ...] = ()
    block_seconds: float = Field(ge=0.1, le=600)
    context_seconds: float = Field(0.0, ge=0)
    overlap: float = Field(0.0, ge=0, lt=1)
    # The shortest block that it takes, and the step to the next, in samples: see `BlockLengths`.
    block_lengths: tuple[PositiveInt, PositiveInt] | None = None

    @model_validator(mode="after")
    def _something_is_left_of_a_block(self) -> "Original":
        if 4 * self.context_seconds > self.block_seconds:
            raise ValueError("context_seconds can be at most a quarter of block_seconds")
        return self


class PackageMetadata(BaseModel):
    """What is needed to run a package, and what is there to show; other keys are ignored."""

    model_config = ConfigDict(frozen=True)

    effect_type: EffectType
    # The README allows rates up to 396000 Hz; to JSON, 48000 and 48000.0 are the same.
    sample_rate: Annotated[int, BeforeValidator(_a_number), Field(gt=0, lt=396_000)]
    multichannel: bool = Field(strict=True)
    labels: tuple[str, ...] = Field(min_length=1)
    name: str = ""
    author: str = ""
    short_description: str = ""
    long_description: str = ""
    tags: tuple[str, ...] = ()
    beamsplitter: Original | None = None

    @model_validator(mode="after")
    def _labels_are_channels_of_stems(self) -> "PackageMetadata":
        if self.beamsplitter is None or self.effect_type == "waveform-to-labels":
            return self
        if not self.beamsplitter.stems:
            raise ValueError("beamsplitter.stems: there is none")
        if len(self.labels) % len(self.beamsplitter.stems):
            raise ValueError(
                f"labels: {len(self.labels)} are no multiple of the stems of beamsplitter.stems, "
                f"of which there are {len(self.beamsplitter.stems)}"
            )
        return self

    @property
    def stems(self) -> tuple[str, ...]:
        """What the labels name: of a separator with several channels, one for each channel."""
        return (self.beamsplitter and self.beamsplitter.stems) or self.labels


class PublishedMetadata(BaseModel):
    """What every reader of packages accepts."""

    model_config = ConfigDict(strict=True)

    short_description: str = Field(max_length=60)
    long_description: str = Field(max_length=280)
    domain_tags: list[Domain] = Field(max_length=4)
    tags: Annotated[
        list[Annotated[str, Field(max_length=15)]],
        Field(max_length=5),
        AfterValidator(_all_different),
    ]
    effect_type: EffectType
    multichannel: bool
    labels: list[str] = Field(min_length=1)
    sample_rate: int = Field(gt=0, le=MAXIMUM_RATE)
    name: str = ""
    author: str = ""


def problems(metadata: object, *, strict: bool = True) -> list[str]:
    """What is wrong with a metadata document; empty if nothing is.

    Parameters
    ----------
    metadata
        the document as `json.load` gives it
    strict
        whether every reader has to accept it, as for publishing, or only this one
    """
    model = PublishedMetadata if strict else PackageMetadata
    try:
        model.model_validate(metadata)
    except ValidationError as error:
        return problems_of(error)
    return []


def read_metadata(path: Path, package: str) -> PackageMetadata:
    """Read and check the metadata of a package.

    Parameters
    ----------
    path
        the file
    package
        how messages call the package

    Raises
    ------
    ModelError
        the file is missing, is no JSON, or says what can't be
    """
    name = f"{package}: {FILE_NAME}"
    try:
        return PackageMetadata.model_validate(read_document(path, name))
    except ValidationError as error:
        raise ModelError(f"{name}: {'; '.join(problems_of(error))}") from error
