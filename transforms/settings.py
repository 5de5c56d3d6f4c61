"""The typed sections of a job that the steps read."""

import hashlib
import json
import os
import string
import unicodedata
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ..audio.errors import UnsupportedFormatError
from ..audio.plot_layout import plot_area
from ..audio.stem_format import BIT_DEPTHS, Container, require_options
from ..models.evaluation.errors import EvaluationError
from ..models.evaluation.measures import DEFAULT_MEASURES, ScoringSettings
from ..models.separators.base import Description, ModelError
from ..models.separators.by_name import SeparatorName, describe, is_elsewhere, is_package
from ..storage import scheme_of
from .feature_settings import FeatureSetSettings
from .label_settings import LabelSettings, require_digest
from .section import ModelField, Section

# Part of every digest: raise it when the same settings begin to give other samples or pictures.
RESULTS_VERSION = 2
MIXTURE_PLOT = "spectrogram"
COMBINED_PLOT = "spectrograms"
NOT_IN_NAMES = frozenset('/\\:*?"<>|\0\n')
OWN_NAMES = (MIXTURE_PLOT, COMBINED_PLOT, "manifest", "scores", "labels", "features", "report")
COMBINED_PIXELS = 64_000_000  # at 5 bytes each while it is drawn
OF_SPECTRA = "spectra"
NEAREST_NEIGHBORS = "nn-filter"
NO_SEPARATOR = "none"


class EnsembleMember(Section):
    """One separator of an ensemble."""

    separator: ModelField = Field(description="as `separation.separator`")
    options: dict[str, object] = Field(default_factory=dict, description="its own")
    weight: float = Field(1.0, gt=0, description="of its estimates in the mean")


class SeparationSettings(Section):
    """How recordings are separated, and which range of them."""

    separator: ModelField = Field(
        NEAREST_NEIGHBORS,
        description="what separates: `nn-filter`, `hpss`, `demucs:NAME`, `umx:NAME`, a model "
        "package's folder or address, the folder of a training, or `module:Class`: see "
        "docs/models.md. `none`: nothing is separated, and plots, labels and features are those "
        "of the recording",
    )
    recipe: Literal["default", "librosa"] | None = Field(
        None,
        description="of `nn-filter`: `default`, or the numbers of `librosa`'s tutorial: see "
        "docs/separation.md",
    )
    options: dict[str, object] = Field(
        default_factory=dict,
        description="those of the separator that are to be changed, such as "
        "`{margin_background: 3}`: see docs/models.md, for `nn-filter` docs/separation.md",
    )
    ensemble: tuple[EnsembleMember, ...] = Field(
        (), description="several separators in place of one: their stems are averaged"
    )
    model_sha256: str | None = Field(
        None, description="refuse a model whose files have another digest"
    )
    residual: bool = Field(
        True,
        description="write what the stems leave of the mixture as `residual`, where they do not "
        "always sum to it",
    )

    part_seconds: float = Field(
        300.0,
        ge=10,
        le=3600,
        description="longest part of a long recording; it is shorter where there are many channels "
        "or the rate is high",
    )
    start_s: float = Field(0.0, ge=0, description="where in each recording to begin, in seconds")
    duration_s: float | None = Field(
        None, gt=0, description="how many seconds of each recording to do; default: all"
    )

    overlap: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of a model's blocks that neighbours have in common; default: the "
        "separator's",
    )
    shifts: int = Field(0, ge=0, le=20, description="average so many estimates of shifted blocks")
    seed: int = Field(0, ge=0, description="decides on the shifts")
    precision: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of models")

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
        description="of models: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`",
    )
    batch_size: int | None = Field(
        None, ge=1, description="of models: blocks in a batch; default: what fits, on a CPU 1"
    )
    compile: bool = Field(False, description="compile models by `torch.compile`")
    model_updates: str | None = Field(
        None,
        description="of a stream on Dataflow: glob of the `metadata.json` of model packages, to go "
        "on with each new one",
    )

    @model_validator(mode="after")
    def _separator_is_there(self) -> "SeparationSettings":
        if self.ensemble and self.separator != NEAREST_NEIGHBORS:
            raise ValueError("separator and ensemble: give one of them")
        if self.ensemble and (self.options or self.recipe):
            raise ValueError("options: with an ensemble, each member has options of its own")
        if NO_SEPARATOR in (each.separator for each in self.ensemble):
            raise ValueError(f"ensemble: {NO_SEPARATOR} gives nothing: leave it out")
        if self.recipe is not None and not self.is_nn_filter:
            raise ValueError("recipe: is one of nn-filter; other separators have options")
        if not self.is_elsewhere:
            self.require_model()
        return self

    def require_model(self) -> None:
        """Refuse a separator that can't be had, or is another one than the job was written for.

        Raises
        ------
        ValueError
            it is
        """
        try:
            found = self.description.sha256
        except ModelError as error:
            raise ValueError(str(error)) from error
        if self.description.effect != "stems":
            raise ValueError(
                f"{self.name} gives labels, no stems: name it in labels.model, and let separator "
                f"be {NO_SEPARATOR} unless stems are wanted, too"
            )
        require_digest(self.name, found, self.model_sha256)

    @property
    def is_elsewhere(self) -> bool:
        """Whether something has to be fetched before it is known what the separator gives."""
        return any(is_elsewhere(each.name) for each in self.separators)

    @property
    def is_nn_filter(self) -> bool:
        """Whether the separator is the nearest-neighbour filter, which has steps of its own."""
        return not self.ensemble and self.separator == NEAREST_NEIGHBORS

    @property
    def runs_models(self) -> bool:
        """Whether there is a separator, and one without steps of its own."""
        return not self.is_nn_filter and self.separator != NO_SEPARATOR

    @property
    def name(self) -> str:
        """What messages call the separator."""
        return " + ".join(each.separator for each in self.ensemble) or self.separator

    @property
    def separators(self) -> tuple[SeparatorName, ...]:
        """The separator, or those of the ensemble."""
        if self.ensemble:
            return tuple(
                SeparatorName.of(each.separator, each.options, each.weight)
                for each in self.ensemble
            )
        recipe = {} if self.recipe is None else {"recipe": self.recipe}
        return (SeparatorName.of(self.separator, {**recipe, **self.options}),)

    @property
    def description(self) -> Description:
        """What is known of the separator without loading it."""
        return describe(self.separators)

    @property
    def title(self) -> str:
        """The separator's name; of a model package only its folder's, wherever that lies."""
        names = (each.name for each in self.separators)
        return " + ".join(
            name.rstrip("/").rpartition("/")[2] if is_package(name) else name for name in names
        )

    @property
    def stem_names(self) -> tuple[str, ...]:
        """The names of the stems that can be written."""
        return self.description.all_stems if self.residual else self.description.stems

    def described(self) -> dict[str, Any]:
        """What decides the content of stems: not where and in which batches they are made."""
        found = self.description
        return {
            "separator": self.name,
            "options": json.loads(found.resolved_options),
            "weights_sha256": found.sha256,
            **self.model_dump(mode="json", exclude={*WHERE_IT_RUNS, *RESOLVED}),
        }


RESOLVED = ("separator", "recipe", "options", "ensemble")
WHERE_IT_RUNS = ("device", "batch_size", "compile", "model_updates", "model_sha256")


class StemSettings(Section):
    """Which stems are written, under which names, in which format."""

    format: Container = Field(
        "flac",
        description="`ogg` is Vorbis, `m4a` AAC-LC: see docs/job-files.md#stems-as-files",
    )
    bit_depth: Literal["source", "16", "24", "32", "32f"] = Field(
        "source",
        description="flac: 16, 24; wav: 16, 24, 32, `32f` (float, never clipped); `source`: the "
        "recording's",
    )
    bit_rate_kbps: int | None = Field(
        None,
        description="kbit/s of all channels together. mp3: one of its own (32 to 320), default: "
        "the most; m4a: 16 to 1024, default: 128 a channel; opus: 6 to 1024, default: 80 a channel",
    )
    quality: float | None = Field(None, description="of ogg: 0 to 10, default: 6")
    sample_rate: int | None = Field(
        None, ge=8000, le=192_000, description="of the stems, in Hz; default: the recording's"
    )
    peaks: Literal["clip", "limit", "rescale"] = Field(
        "clip",
        description="beyond full scale: `clip` (and count), `limit` (each stem by itself), "
        "`rescale` (all stems alike)",
    )
    two_stems: str | None = Field(
        None,
        description="a stem: write it, and the sum of all others as `no_NAME`, such as `no_vocals`",
    )
    select: tuple[str, ...] | None = Field(
        None,
        description="the stems to write, such as `[background]`; `residual` is one; default: all",
    )
    rename: dict[str, str] = Field(
        default_factory=dict,
        description="names in the output, such as `{foreground: vocals}`; capitals make no other "
        "name",
    )
    file_name: str = Field(
        "{stem}",
        description="what the files of stems, and their plots, are called, without extension: with "
        "`{stem}`, and `{recording}` (the name of its folder) and `{separator}` if wished, such as "
        '`"{recording}_({stem})"`',
    )
    tags: bool = Field(
        True,
        description="carry title, artist, album, track, cover and a few more over, whatever "
        "container they are in",
    )

    @field_validator("bit_depth", mode="before")
    @classmethod
    def _numbers_are_fine(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @field_validator("rename")
    @classmethod
    def _names_are_file_names(cls, rename: dict[str, str]) -> dict[str, str]:
        for name in rename.values():
            _require_file_name(name)
            if same_name(name) in OWN_NAMES:
                raise ValueError(f"{name!r} is taken by a file of the job itself")
        return rename

    @field_validator("file_name")
    @classmethod
    def _template_names_the_stem(cls, template: str) -> str:
        try:
            fields = {name for _, name, _, _ in string.Formatter().parse(template) if name}
            example = template.format(stem="a", recording="b", separator="c")
        except (ValueError, KeyError, IndexError) as error:
            raise ValueError(
                f"{template!r} is no template: it has {{stem}}, {{recording}} and {{separator}}"
            ) from error
        if "stem" not in fields:
            raise ValueError(f"{template!r} lacks {{stem}}: all stems would have one name")
        _require_file_name(example)
        return template

    @model_validator(mode="after")
    def _format_has_these_options(self) -> "StemSettings":
        depths = ("source", *BIT_DEPTHS.get(self.format, ()))
        if self.bit_depth not in depths:
            raise ValueError(
                f"{self.format} can't have bit_depth {self.bit_depth}: use {', '.join(depths)}"
            )
        try:
            require_options(self.format, self.sample_rate, self.bit_rate_kbps, self.quality)
        except UnsupportedFormatError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def sum_of_others(self) -> str | None:
        """The name of the sum of the stems that are not `two_stems`, if there is one."""
        return None if self.two_stems is None else f"no_{self.two_stems}"

    def name_of(self, stem: str) -> str:
        """The stem's name in the output tree."""
        return self.rename.get(stem, stem)


def _require_file_name(name: str) -> None:
    if not name or name.startswith(".") or set(name) & NOT_IN_NAMES:
        raise ValueError(
            f"{name!r} can't be a file name: it is empty, begins with a dot, or has one of "
            '/ \\ : * ? " < > |'
        )


def same_name(name: str) -> str:
    """What a name is to file systems that ignore case, and how letters are composed of accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class PlotSettings(Section):
    """The spectrogram plots."""

    enabled: bool = Field(True, description="draw spectrograms: see docs/job-files.md#plots")
    layout: Literal["each", "combined", "both"] = Field(
        "each",
        description="`each`: a picture of the mixture and one of each stem; `combined`: one, "
        "`spectrograms.png`, of the mixture above its stems; `both`",
    )
    width: int = Field(1100, ge=1, le=4000, description="pixels of the picture of one signal")
    height: int = Field(
        450,
        ge=1,
        le=2000,
        description="pixels of the picture of one signal; a combined one is higher",
    )
    dpi: int = Field(
        72,
        ge=36,
        le=600,
        description="fonts, lines and margins grow with it: at 144, a picture of twice the width "
        "and height is the same one with twice the pixels",
    )
    range_db: float = Field(
        80.0, gt=0, le=200, description="dB from the top to the bottom of the colour scale"
    )

    @model_validator(mode="after")
    def _has_room(self) -> "PlotSettings":
        plot_area(self.width, self.height, dpi=self.dpi)
        return self

    def require_stackable(self, signals: int) -> None:
        """Refuse a combined picture of so many signals that takes too much memory to draw.

        Raises
        ------
        ValueError
            it does
        """
        height = signals * self.height
        if self.layout != "each" and height > min(60_000, COMBINED_PIXELS // self.width):
            raise ValueError(
                f"plots: a combined picture of {signals} signals, each of {self.width} x "
                f"{self.height} pixels, would be too large: lower width or height, write fewer "
                "stems, or use layout: each"
            )


class ScoreSettings(Section):
    """How near stems come to true ones, where there are some."""

    references: str | None = Field(
        None,
        description="score the stems against true ones: where those of a recording lie, a folder "
        "or a `.stem.mp4`: with `{folder}`, that of the recording, `{recording}`, its path below "
        "the data's location without extension, or `{file}`, its own path: see "
        "docs/evaluating.md#while-separating",
    )
    names: dict[str, str] = Field(
        default_factory=dict,
        description="what the stems of the job are called there, such as `{foreground: vocals, "
        "background: no_vocals}`",
    )
    measures: tuple[str, ...] = Field(
        DEFAULT_MEASURES, min_length=1, description="see docs/measures.md"
    )
    frame_s: float = Field(1.0, ge=0.1, description="length of a frame in seconds")
    hop_s: float | None = Field(
        None, ge=0.1, description="seconds from one frame to the next; default: `frame_s`"
    )

    @field_validator("references")
    @classmethod
    def _template_can_be_filled(cls, template: str | None) -> str | None:
        if template is None:
            return None
        try:
            template.format(folder="a", recording="b", file="c")
        except (ValueError, KeyError, IndexError) as error:
            raise ValueError(
                f"{template!r} is no template: it has {{folder}}, {{recording}} and {{file}}"
            ) from error
        if scheme_of(template) or template.startswith(("{folder}", "{file}")):
            return template
        return os.path.abspath(os.path.expanduser(template))

    @model_validator(mode="after")
    def _measures_are_there(self) -> "ScoreSettings":
        try:
            _ = self.scoring
        except EvaluationError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def scoring(self) -> ScoringSettings:
        """What is measured, of which frames."""
        hop_s = self.frame_s if self.hop_s is None else self.hop_s
        return ScoringSettings(self.measures, self.frame_s, hop_s)

    @property
    def root(self) -> str:
        """The folder that all true stems lie below; empty where that of each recording tells it."""
        return os.path.dirname((self.references or "").partition("{")[0])

    def location_of(self, uri: str, folder: str) -> str:
        """Where the true stems of a recording are to lie.

        Parameters
        ----------
        uri
            its own path
        folder
            of its results in the output tree
        """
        recording = folder
        if os.path.basename(folder) == os.path.basename(uri):
            recording = os.path.splitext(folder)[0]
        return (self.references or "").format(
            folder=os.path.dirname(uri), recording=recording, file=uri
        )


class ReportSettings(Section):
    """What the page of results shows and plays of each recording."""

    enabled: bool = Field(False, description="make it in the pass that makes the stems")
    audio: bool = Field(True, description="with copies for listening: Opus, 48 kbit/s a channel")


class StorageSettings(Section):
    """How buckets are used."""

    user_project: str | None = Field(
        None,
        description="the project that pays for requests to buckets of recordings, events and "
        "results whose owner does not",
    )
    kms_key: str | None = Field(
        None,
        pattern=r"^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$",
        description="key of what is written on `gs://`: "
        "`projects/…/locations/…/keyRings/…/cryptoKeys/…`; default: the bucket's own",
    )


class LimitSettings(Section):
    """How long a step may take for a recording on this machine, before it counts as hanging.

    See docs/job-files.md#recordings-that-hang.
    """

    step_s: float = Field(60.0, gt=0, description="seconds, whatever the recording's length")
    step_times_length: float = Field(
        30.0, ge=0, description="on top, so many times the recording's length"
    )


class SplitSettings(Section):
    """All that decides what a recording's files hold."""

    separation: SeparationSettings = SeparationSettings()
    stems: StemSettings = StemSettings()
    plots: PlotSettings = PlotSettings()
    scores: ScoreSettings = ScoreSettings()
    labels: LabelSettings = LabelSettings()
    features: FeatureSetSettings = FeatureSetSettings()
    report: ReportSettings = ReportSettings()
    join: Literal["parts", "cogbk"] = Field(
        "parts",
        description="`cogbk`: Klio's literal fan-out graph with CoGroupByKeys, for excerpts of at "
        "most 60 s and of one part, whose foreground has a mask of its own (`recipe: librosa`). "
        "Its plots show the masked spectra",
    )

    @model_validator(mode="after")
    def _stems_exist(self) -> "SplitSettings":
        if not self.separation.is_elsewhere:
            self.require_stems()
        return self

    def require_stems(self) -> None:
        """Refuse stems that the separator does not give, that would share a name, or are too many.

        Raises
        ------
        ValueError
            there are some
        """
        self._require_two_stems()
        self._require_scorable()
        self._require_featured()
        for stem in [*(self.stems.select or ()), *self.stems.rename]:
            if stem not in self.stem_names:
                raise ValueError(
                    f"stems: {stem!r} is no stem of {self.separation.name}, "
                    f"which gives {', '.join(self.stem_names) or 'no stems'}"
                )
        self.plots.require_stackable(1 + len(self.wanted_stems))
        names = [self.stems.name_of(stem) for stem in self.wanted_stems]
        for name in names:
            if same_name(name) in OWN_NAMES:
                raise ValueError(
                    f"stems: {name!r} is taken by a file of the job itself: rename the stem, by "
                    f"stems.rename.{name}=…"
                )
        if len(set(map(same_name, names))) < len(names):
            raise ValueError(
                f"stems: two stems would share a name, at least where a file system takes "
                f"capitals for small letters: {', '.join(names)}"
            )

    def _require_scorable(self) -> None:
        if self.scores.references is None:
            return
        if self.join == "cogbk":
            raise ValueError("scores: join: cogbk writes stems and plots only: leave one of them")
        if not self.stem_names:
            raise ValueError(f"scores: {self.separation.name} gives no stems to score")

    def _require_featured(self) -> None:
        more = self.features.sets or self.labels.model or self.report.enabled
        if self.join == "cogbk" and more:
            raise ValueError(
                "join: cogbk writes stems and plots only: leave it out, or features, labels and "
                "report"
            )
        for stem in self.features.stems:
            if stem not in self.wanted_stems:
                raise ValueError(
                    f"features: of: {stem!r} is neither mixture nor a stem that is written; those "
                    f"are {', '.join(self.wanted_stems) or 'none'}"
                )

    def _require_two_stems(self) -> None:
        two_stems, made = self.stems.two_stems, self.separation.stem_names
        if two_stems is None:
            return
        if two_stems not in made:
            raise ValueError(
                f"stems: two_stems: {two_stems!r} is no stem of {self.separation.name}, "
                f"which gives {', '.join(made) or 'no stems'}"
            )
        if len(made) < 2:
            raise ValueError(f"stems: two_stems: {self.separation.name} gives no others to sum")
        if self.stems.sum_of_others in made:
            raise ValueError(
                f"stems: two_stems: {self.separation.name} gives a stem {self.stems.sum_of_others} "
                "of its own: leave two_stems out, and select what you want"
            )

    @property
    def stem_names(self) -> tuple[str, ...]:
        """The names of the stems that can be written: with `two_stems`, it and the others' sum."""
        two_stems, others = self.stems.two_stems, self.stems.sum_of_others
        if two_stems is None or others is None:
            return self.separation.stem_names
        return two_stems, others

    @property
    def wanted_stems(self) -> tuple[str, ...]:
        """The stems to write, in the separator's order."""
        selected = self.stems.select
        return tuple(stem for stem in self.stem_names if selected is None or stem in selected)

    @property
    def separated_stems(self) -> tuple[str, ...]:
        """The stems that the separator is to make: a sum of all others needs all of them."""
        if self.stems.sum_of_others in self.wanted_stems:
            return self.separation.stem_names
        return self.wanted_stems

    def file_names(self, folder: str) -> dict[str, str]:
        """What the files of the stems to write are called, without extension, by stem.

        Parameters
        ----------
        folder
            of the recording's results
        """
        separator = "".join("-" if each in NOT_IN_NAMES else each for each in self.separation.name)
        return {
            stem: self.stems.file_name.format(
                stem=self.stems.name_of(stem),
                recording=os.path.basename(folder),
                separator=separator,
            )
            for stem in self.wanted_stems
        }

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches of the job, in the order of the graph."""
        stems = () if self.separation.separator == NO_SEPARATOR else ("stems",)
        labels = ("labels",) if self.labels.model else ()
        scores = ("scores",) if self.scores.references is not None else ()
        features = ("features",) if self.features.sets else ()
        plots = ("plots",) if self.plots.enabled else ()
        report = ("report",) if self.report.enabled else ()
        return (*stems, *labels, *scores, *features, *report, *plots)

    @property
    def branches_of_stems(self) -> frozenset[str]:
        """The branches whose files show what the stems hold."""
        features = ("features",) if self.features.stems else ()
        return (
            frozenset(("plots", "scores", "report", *features)) if self.stem_names else frozenset()
        )

    @property
    def runs_models(self) -> bool:
        """Whether the job has a model infer, and does not do with steps of its own."""
        return self.separation.runs_models or self.labels.model is not None

    @property
    def models(self) -> tuple[tuple[SeparatorName, ...], ...]:
        """What the job loads: the separator or those of an ensemble, and what gives labels."""
        return (self.separation.separators, *((each,) for each in self.labels.labelers))

    def described(self) -> dict[str, dict[str, Any]]:
        """All that decides what the files of each branch hold, in words."""
        made = {"results_version": RESULTS_VERSION, **self.separation.described()}
        of_mixture = {name: made[name] for name in ("results_version", "start_s", "duration_s")}
        shown = of_mixture
        if self.stem_names:
            made |= self.stems.model_dump(mode="json")
            shown = {"stems": digest_of(made)}
        if self.join == "cogbk":
            shown["of"] = OF_SPECTRA  # where others are made of the files
        featured = shown if self.features.stems else of_mixture
        described = {"plots": {**shown, **self.plots.model_dump(mode="json")}}
        if self.separation.separator != NO_SEPARATOR:
            described["stems"] = made
        if self.labels.model is not None:
            described["labels"] = {**of_mixture, **self.labels.described()}
        if self.scores.references is not None:
            described["scores"] = {**shown, **self.scores.model_dump(mode="json")}
        if self.report.enabled:
            described["report"] = {**shown, "audio": self.report.audio}
        if self.features.sets:
            described["features"] = {**featured, **self.features.described()}
        return described

    def digests(self) -> dict[str, str]:
        """A digest of each branch's settings; a branch is done again when its digest changes."""
        return {branch: digest_of(settings) for branch, settings in self.described().items()}


def digest_of(settings: object) -> str:
    """A digest of settings in words."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
