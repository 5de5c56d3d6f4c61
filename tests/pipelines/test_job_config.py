"""Job files: Klio's schema loads, mistakes are named with their fix."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from facts import assert_names
from separators import Identity

from beamsplitter.audio.decoding.decoder import AudioInfo
from beamsplitter.audio.errors import UnsupportedFormatError
from beamsplitter.audio.stem_format import CONTAINERS, choose_format
from beamsplitter.models.separators.by_name import describe
from beamsplitter.pipelines.job.job_config import JobConfig, JobFileError, load_job, parse_job
from beamsplitter.transforms import settings
from beamsplitter.transforms.settings import PlotSettings

KLIO_JOB = """
job_name: audio-spectrograms
version: 2
pipeline_options:
  runner: DirectRunner
  streaming: false
  worker_harness_container_image: gcr.io/p/i
job_config:
  metrics:
    logger: {level: debug}
  allow_non_klio_messages: false
  events:
    inputs:
      - type: file
        location: ./audio_ids.txt
  data:
    inputs:
      - type: file
        location: ./inputs
        file_suffix: .ogg
    outputs:
      - type: file
        location: ./outputs
        file_suffix: .png
  my_own_key: 3
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return str(path)


def test_a_klio_v2_file_loads_unchanged(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, KLIO_JOB))
    assert job.job_name == "audio-spectrograms"
    assert job.job_config.data.inputs[0].file_suffix == ".ogg"
    assert job.job_config.model_extra == {"my_own_key": 3}
    assert job.pipeline_options.sdk_container_image == "gcr.io/p/i"


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"seperation": {}}, ["seperation:", "'separation'"]),
        ({"stems": {"formt": "wav"}}, ["stems.formt:", "'format'"]),
        ({"job_config": {"event": {}}}, ["job_config: ", "'event'", "'events'"]),
        ({"version": 3}, ["version:", "2"]),
        ({"stems": {"format": "aac"}}, ["stems.format:", "'flac'", "'wav'", "'ogg'", "'mp3'"]),
        ({"stems": {"select": ["vocals"]}}, ["'vocals'", "nn-filter", "background, foreground"]),
        ({"stems": {"rename": {"foreground": "../x"}}}, ["stems.rename:", "'../x'"]),
        ({"stems": {"rename": {"foreground": "spectrogram"}}}, ["stems.rename:", "'spectrogram'"]),
        ({"stems": {"rename": {"foreground": "background"}}}, ["stems:", "background, background"]),
        ({"stems": {"rename": {"foreground": "BACKGROUND"}}}, ["background, BACKGROUND"]),
        (
            {"stems": {"rename": {"foreground": "Gr\u00fcn", "background": "gru\u0308n"}}},
            ["stems:", "gru\u0308n, Gr\u00fcn"],
        ),
        ({"stems": {"rename": {"foreground": "Manifest"}}}, ["stems.rename:", "'Manifest'"]),
        ({"separation": {"part_seconds": 1}}, ["separation.part_seconds:", "10"]),
        ({"separation": {"options": {"marginn": 1}}}, ["marginn"]),
        ({"join": "cogbk"}, ["join: cogbk", "separation.recipe: librosa"]),
        (
            {"join": "cogbk", "separation": {"recipe": "librosa"}},
            ["separation.duration_s", "60"],
        ),
        (
            {
                "join": "cogbk",
                "separation": {"recipe": "librosa", "duration_s": 5},
                "plots": {"layout": "combined"},
            },
            ["join: cogbk", "plots.layout: each"],
        ),
        ({"job_config": {"events": {"inputs": [{"type": "kafka"}]}}}, ["'file'", "'folder'"]),
        ({"job_config": {"events": {"inputs": [{"location": "in"}]}}}, ["inputs.0:", "type"]),
        (
            {"job_config": {"events": {"inputs": [{"type": "folder", "locaton": "in"}]}}},
            ["job_config.events.inputs.0.locaton:", "'location'"],
        ),
        (
            {"job_config": {"events": {"outputs": [{"type": "pubsub", "topic": "finished"}]}}},
            ["events.outputs.0.topic:", "'finished'", "pipeline_options.project"],
        ),
        (
            {"storage": {"kms_key": "mine"}},
            ["kms_key:", "'mine'", "projects/…/locations/…/keyRings"],
        ),
        ({"stems": 5}, ["job.yaml: stems:"]),
        ({"job_config": {"events": 5}}, ["job.yaml: job_config.events:"]),
    ],
)
def test_mistakes_name_place_and_fix(changes: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(JobFileError) as error:
        parse_job({"job_name": "j", "version": 2, **changes}, source="job.yaml")
    assert_names(error.value, *facts)
    assert str(error.value).startswith("job.yaml: ")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("depth", ["source", "16", "24", "32", "32f"])
def test_formats_have_the_bit_depths_that_can_be_encoded(container: str, depth: str) -> None:
    info = AudioInfo("wav", "pcm_s16le", 44100, 2, frames=44100, bit_depth=16, is_float=False)
    plain = {"job_name": "j", "stems": {"format": container, "bit_depth": depth}}
    try:
        choose_format(container, bit_depth=depth, info=info)
    except UnsupportedFormatError:
        with pytest.raises(JobFileError, match=f"stems: {container} .*bit_depth {depth}"):
            parse_job(plain, source="job.yaml")
    else:
        assert parse_job(plain, source="job.yaml").stems.bit_depth == depth


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("a: [", "is no YAML"), ("just text", "holds no keys"), ("", "holds no keys")],
)
def test_files_that_are_no_job_files(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(JobFileError, match=complaint):
        load_job(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match=r"nowhere\.yaml: can't be read"):
        load_job(str(tmp_path / "nowhere.yaml"))


def override(tmp_path: Path, *overrides: str) -> JobConfig:
    return load_job(write(tmp_path, KLIO_JOB), overrides=overrides)


def test_override_values_are_yaml(tmp_path: Path) -> None:
    job = override(tmp_path, "pipeline_options.streaming=false", "separation.part_seconds=60")
    assert job.pipeline_options.streaming is False
    assert job.separation.part_seconds == 60


def test_overrides_keep_case_and_equals_signs(tmp_path: Path) -> None:
    job = override(tmp_path, "job_config.Own=A=b", "job_config.events.inputs.0.location=X/Y.txt")
    assert job.job_config.model_extra == {"my_own_key": 3, "Own": "A=b"}
    assert job.job_config.events.inputs[0].location == "X/Y.txt"


@pytest.mark.parametrize("wrong", ["no-value", "=3", "job_name.x=1", "job_config.data.inputs.7=1"])
def test_a_wrong_override_is_named(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(JobFileError, match="-O "):
        override(tmp_path, wrong)


def test_templates_fill_names_of_any_case(tmp_path: Path) -> None:
    text = KLIO_JOB.replace("./inputs", "${IN_Folder}/a").replace("gcr.io/p/i", "$$5")
    job = load_job(write(tmp_path, text), templates={"IN_Folder": "/x=1"})
    assert job.job_config.data.inputs[0].location == "/x=1/a"
    assert job.pipeline_options.sdk_container_image == "$5"


def test_a_missing_template_value_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match=r"'FOO' .*--template"):
        load_job(write(tmp_path, KLIO_JOB + "\nx: ${FOO}"), templates={"BAR": "1"})


def test_a_job_survives_a_round_trip_through_plain_values(tmp_path: Path) -> None:
    job = override(tmp_path, "separation.options.power=1")
    again = parse_job(yaml.safe_load(yaml.safe_dump(job.model_dump(mode="json"))), source="again")
    assert again == job
    assert again.settings.digests() == job.settings.digests()


def test_digests_follow_what_changes_the_files() -> None:
    def digests(**sections: Any) -> dict[str, str]:
        return parse_job({"job_name": "j", **sections}, source="j").settings.digests()

    plain = digests()
    assert digests(job_config={"blocking": True}, job_name="other") == plain
    wav = digests(stems={"format": "wav"})
    assert wav["stems"] != plain["stems"] and wav["plots"] != plain["plots"]
    dark = digests(plots={"range_db": 60})
    assert dark["stems"] == plain["stems"] and dark["plots"] != plain["plots"]
    drawn = ({"layout": "both"}, {"width": 1000}, {"height": 400}, {"dpi": 96})
    assert len({digests(plots=each)["plots"] for each in ({}, *drawn)}) == 1 + len(drawn)


@pytest.mark.parametrize(
    ("plots", "facts"),
    [
        ({"layout": "one"}, ["plots.layout", "each", "combined", "both"]),
        ({"width": 5000}, ["plots.width", "4000"]),
        ({"height": 0}, ["plots.height"]),
        ({"dpi": 20}, ["plots.dpi", "36"]),
        ({"width": 300}, ["plots", "300 x 450", "320 x 190"]),
        ({"dpi": 300}, ["plots", "1100 x 450", "300 dpi"]),
    ],
)
def test_sizes_that_no_plot_can_have_are_named(plots: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(JobFileError) as refused:
        parse_job({"job_name": "j", "plots": plots}, source="j.yaml")
    assert_names(refused.value, "j.yaml", *facts)


@pytest.mark.parametrize("layout", ["combined", "both"])
def test_a_combined_plot_that_is_too_large_is_refused(layout: str) -> None:
    """Ten signals: the limit is on the picture that they make together."""
    plots = PlotSettings(layout=layout, width=4000, height=1600)
    plots.require_stackable(10)
    for signals, more in ((11, plots), (10, plots.model_copy(update={"height": 1601}))):
        with pytest.raises(ValueError, match=f"{signals} signals.*4000 x {more.height}"):
            more.require_stackable(signals)
        more.model_copy(update={"layout": "each"}).require_stackable(signals)
    large = {"layout": layout, "width": 4000, "height": 2000}
    parse_job({"job_name": "j", "plots": large}, source="j")


def test_many_stems_make_a_combined_plot_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "COMBINED_PIXELS", 3 * 1100 * 450)
    job = {"job_name": "j", "plots": {"layout": "combined"}}
    parse_job(job, source="j")
    with pytest.raises(JobFileError, match="combined picture of 3 signals"):
        parse_job({**job, "plots": {"layout": "combined", "height": 451}}, source="j")
    selected = {"stems": {"select": ["background"]}, "plots": {"layout": "both", "height": 600}}
    parse_job({**job, **selected}, source="j")


@pytest.mark.parametrize("name", ["spectrogram", "Spectrograms", "manifest"])
def test_stems_are_not_called_as_files_of_the_job(name: str) -> None:
    with pytest.raises(JobFileError, match=f"stems.rename.*{name}"):
        parse_job({"job_name": "j", "stems": {"rename": {"background": name}}}, source="j")


def test_stems_of_a_separator_that_are_called_so_must_be_renamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Identity, "stems", ("Spectrogram", "rest"))
    job = {
        "job_name": "j",
        "separation": {"separator": "separators:Identity", "options": {"block_samples": 7}},
    }
    describe.cache_clear()
    with pytest.raises(JobFileError, match=r"stems.rename.Spectrogram"):
        parse_job(job, source="j")
    parse_job({**job, "stems": {"rename": {"Spectrogram": "sound"}}}, source="j")
    describe.cache_clear()
