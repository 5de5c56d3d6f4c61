"""What the documentation says of separators and models, held against the code."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import Command
from feature_samples import made_samples, write_set
from made_songs import made_song
from pydantic import BaseModel
from toy_classifiers import RATE as SOUND_RATE
from toy_classifiers import made_sound, write_labels

from beamsplitter.audio.chorus import Reason
from beamsplitter.models import model_cache, model_registry
from beamsplitter.models.classifiers.excerpts import Excerpt
from beamsplitter.models.classifiers.label_table import read_label_table
from beamsplitter.models.classifiers.settings import ClassifierSettings
from beamsplitter.models.feature_sets.arrays import FORMATS_OF, ArrayEntry, RecordingFormat
from beamsplitter.models.feature_sets.recording_file import write_recording_file
from beamsplitter.models.networks.by_settings import make_model
from beamsplitter.models.networks.settings import SETTINGS as NETWORKS
from beamsplitter.models.networks.settings import network_settings
from beamsplitter.models.packages.trained import (
    NETWORK_FILE,
    WEIGHTS_FILE,
    save_trained,
    write_json,
)
from beamsplitter.models.separators.by_name import EXTRAS, KINDS, SeparatorName, describe
from beamsplitter.models.separators.demucs import RELEASES, SAMPLE_RATE
from beamsplitter.models.separators.harmonic_percussive import HarmonicPercussiveOptions
from beamsplitter.models.separators.mixing import BLOCKS_AT_ONCE
from beamsplitter.models.separators.model_package import DEFAULT_CONTEXT_S, PackageOptions
from beamsplitter.models.separators.open_unmix import OpenUnmixOptions
from beamsplitter.models.separators.recipes import NearestNeighborRecipe
from beamsplitter.models.separators.server import LANES, REQUESTS_AHEAD
from beamsplitter.models.training.keeping import CHECKPOINT_FILE, RECORD_FILE, TRAINER_FILE
from beamsplitter.models.training.settings import RECIPES, Criterion
from beamsplitter.transforms.settings import SplitSettings

WriteAudio = Callable[..., Path]
ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MODELS = (DOCS / "models.md").read_text()
WRITING = (DOCS / "writing-a-separator.md").read_text()
MOST_LINES = 40
READERS = ("webdataset", "tfrecord", "pyarrow", "zarr", "nothing")


def blocks_of(text: str, language: str) -> list[str]:
    """The code blocks of a language; "" for those of none, which are commands."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [block for of, block in fenced if of == language]


def cells_of(text: str) -> list[list[str]]:
    """The rows of all tables."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def share_of(tone: np.ndarray, samples: np.ndarray) -> float:
    """How much of a tone of amplitude 1 is in each channel, on the mean."""
    return float((samples @ tone).mean() / (tone @ tone))


ToldBy = Callable[[str, Path], str]


@pytest.fixture(scope="module")
def told_by(command: Command, tmp_path_factory: pytest.TempPathFactory) -> ToldBy:
    """What commands of a page print in a folder; they succeed."""
    programs = tmp_path_factory.mktemp("bin")
    command.warm.write_stand_in(programs / "beamsplitter")
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])

    def told_by(commands: str, folder: Path) -> str:
        done = subprocess.run(
            ["sh", "-e", "-c", commands],
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return told_by


def test_a_separator_in_40_lines_runs(
    told_by: ToldBy, write_audio: WriteAudio, tmp_path: Path
) -> None:
    rate = 44100
    time_s = np.arange(rate) / rate
    low, high = (np.sin(2 * np.pi * frequency * time_s) for frequency in (60, 1000))
    mixture = np.stack([0.3 * low + 0.2 * high, 0.3 * low - 0.1 * high]).astype(np.float32)
    write_audio("song.wav", sample_rate=rate, samples=mixture)
    mixture = read(tmp_path / "song.wav")
    names = []
    for code in blocks_of(WRITING, "python"):
        name = code.splitlines()[0].removeprefix("# ")
        assert len(code.splitlines()) <= MOST_LINES, name
        (tmp_path / name).write_text(code)
        names.append(name)
    assert names == ["bass.py", "mask_net.py", "pack.py", "export.py"]
    for commands in blocks_of(WRITING, ""):
        told_by(commands, tmp_path)
    step = 2**-15

    bass, residual = (
        read(tmp_path / "out" / "song" / f"{name}.flac") for name in ("bass", "residual")
    )
    np.testing.assert_allclose(bass + residual, mixture, atol=2 * step)
    assert share_of(low, bass) == pytest.approx(0.3, abs=0.01)
    assert share_of(high, bass) == pytest.approx(0, abs=0.001)

    folders = [tmp_path / name / "song" for name in ("out-mask", "out-package", "out-exported")]
    voices = [read(folder / "voice.flac") for folder in folders]
    assert np.abs(voices[0]).max() > 0.05
    for voice, folder in zip(voices, folders, strict=True):
        np.testing.assert_allclose(voice, voices[0], atol=2 * step)
        np.testing.assert_allclose(voice + read(folder / "residual.flac"), mixture, atol=2 * step)
    assert (tmp_path / "mask-package" / "model.pt2").is_file()


def test_the_page_on_datasets_runs(
    told_by: ToldBy, write_audio: WriteAudio, tmp_path: Path
) -> None:
    """On toy data, its commands first, as it has them."""
    page = (DOCS / "datasets.md").read_text()
    for seed, name in enumerate(("train/a", "train/b", "val/c")):
        for stem in ("vocals", "rest"):
            write_audio(f"data/{name}/{stem}.wav", seconds=7, sample_rate=44100, seed=seed)
    commands = [block.strip() for block in blocks_of(page, "")]
    for code in blocks_of(page, "python"):
        name = code.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(code)
        commands.append(f"python {name}")
    told = {command: told_by(command, tmp_path) for command in commands}
    assert [*told] == [
        "beamsplitter dataset check data",
        "beamsplitter prepare data -o shards --targets vocals",
        "python load.py",
        "python stream.py",
        "python prepare_elsewhere.py",
    ]
    for folder in ("data/train", "shards/train"):
        # Two distinct tracks in each batch.
        assert told["python load.py"].count(f"{folder} (2, 2, 1, 132300)") == 2
    rows = "{'vocals': (132300,), 'rest_of_mixture': (132300,)}"
    assert told["python stream.py"].splitlines() == [rows] * 4
    for shard in (tmp_path / "shards").rglob("*.tar"):
        ours = tmp_path / "shards-of-mine" / shard.relative_to(tmp_path / "shards")
        assert ours.read_bytes() == shard.read_bytes()


def test_the_page_on_evaluating_runs(
    told_by: ToldBy, write_audio: WriteAudio, tmp_path: Path
) -> None:
    """Its first line, on toy data; of the second: tests/pipelines/test_evaluate.py."""
    page = (DOCS / "evaluating.md").read_text()
    for folder in ("data/test/song", "separated/song"):
        for seed, stem in enumerate(("vocals", "rest")):
            write_audio(f"{folder}/{stem}.wav", seconds=2, seed=seed)
    first, second = blocks_of(page, "")[0].splitlines()
    assert "scored (0 before)" in told_by(first, tmp_path)
    assert second == (
        "beamsplitter evaluate data/test --separator vocals-net --separator nn-filter -o scores"
    )
    tree = blocks_of(page, "")[1]
    for name in ("scores.md", "scores.csv", "scores.parquet", "scores.json", "failures.jsonl"):
        assert name in tree
        assert (tmp_path / "scores" / name).is_file()
    assert (tmp_path / "scores/tracks/separated/song.json").is_file()
    assert (tmp_path / "scores/museval/separated/test/song.json").is_file()
    (code,) = blocks_of(page, "python")
    (tmp_path / "evaluate_elsewhere.py").write_text(code)
    told_by("python evaluate_elsewhere.py", tmp_path)
    ours = (tmp_path / "scores-of-mine/scores.csv").read_text()
    theirs = (tmp_path / "scores/scores.csv").read_text()
    assert ours == theirs.replace("separated,song", "ours,song")


def test_the_page_on_choruses_runs(told_by: ToldBy, tmp_path: Path) -> None:
    page = (DOCS / "choruses.md").read_text()
    (tmp_path / "songs").mkdir()
    soundfile.write(tmp_path / "songs/song.wav", made_song("ABCB", section_s=24), 8000)
    table, nothing = (told_by(line, tmp_path) for line in blocks_of(page, "")[0].splitlines())
    for told in (table, nothing):
        assert told.splitlines()[-1] == "1 recording"
    written = [path.name for path in (tmp_path / "out/song").iterdir()]
    assert sorted(written) == ["chorus.flac", "chorus.json", "chorus.txt"]
    assert all(f"    {name} " in page for name in written)
    (code,) = blocks_of(page, "python")
    (tmp_path / "find.py").write_text(code)
    first, second = told_by("python find.py", tmp_path).splitlines()
    content = json.loads((tmp_path / "out/song/chorus.json").read_text())
    reason, start_s, _ = first.split()
    assert reason == "None"
    assert float(start_s) == pytest.approx(content["excerpt_start_s"], abs=1e-5)
    assert second.endswith(" 0")
    reasons = {row[0].strip("`") for row in cells_of(page) if len(row) == 2}
    assert {*get_args(Reason)} <= reasons


def test_the_page_on_feature_sets_runs(told_by: ToldBy, tmp_path: Path) -> None:
    """Its programs, each on a set of the format that it reads."""
    page = (DOCS / "feature-sets.md").read_text()
    shards = [made_samples(count, seed=count) for count in (3, 2)]
    samples = [sample for shard in shards for sample in shard]
    array = samples[0].arrays["log_mel/mixture"]
    (tmp_path / "song").mkdir()
    metadata = {"folder": "song", "sets": {"log_mel": {"kind": "log_mel"}}}
    for format in FORMATS_OF["float32"]:
        if format in get_args(RecordingFormat):
            entry = ArrayEntry("log_mel/mixture", (30, 4), "float32", lambda: [array[:3]] * 10)
            with (tmp_path / f"song/features.{format}").open("wb") as file:
                write_recording_file(file, [entry], metadata, format)
        else:
            write_set(tmp_path / format / "features", shards, format)
            # As any run leaves them beside the shards.
            for name in ("failures.jsonl", "features-statistics.json", "run.json"):
                (tmp_path / format / "features" / name).write_text("")
        assert any(row[0] == f"`{format}`" for row in cells_of(page))
    told = {}
    for code in blocks_of(page, "python"):
        name = code.splitlines()[0].removeprefix("# ")
        format = {"read_files.py": ".", "with_tfrecord.py": "tfrecord", "with_zarr.py": "zarr"}.get(
            name, "parquet" if "arrow" in name else "webdataset"
        )
        (tmp_path / format / name).write_text(code)
        # The package tfrecord is there.
        oracles = f"PYTHONPATH={sys.prefix}/oracles"
        told[name] = told_by(f"{oracles} python {name}", tmp_path / format).splitlines()
    assert told.pop("read_files.py") == ["(30, 4)", "song log_mel", "torch.Size([10, 4])", "True"]
    lines = told.pop("train.py")
    names = tuple(samples[0].arrays)
    assert lines[0] == f"5 {names} log_mel"
    assert len(lines) == 1 + 2 + 2 * len(samples)
    for sample in samples:
        shape = torch.Size(sample.arrays["log_mel/mixture"].shape)
        assert lines.count(f"{sample.key} {sample.facts['start_s']} {shape}") == 2
    expected = sorted(f"{each.key} {each.arrays['log_mel/mixture'].shape}" for each in samples)
    assert [*told] == [f"with_{each}.py" for each in READERS]
    for name, lines in told.items():
        assert sorted(lines) == expected, name


def test_the_page_on_training_runs(
    told_by: ToldBy, write_audio: WriteAudio, tmp_path: Path
) -> None:
    """On toy data: its commands in their order, but for two epochs each."""
    for index, name in enumerate(("train/a", "train/b", "val/c")):
        write_audio(f"stems/{name}/vocals.wav", seconds=7, sample_rate=44100, seed=index)
        noise = 0.1 * np.random.default_rng(index).standard_normal((1, 7 * 44100))
        write_audio(f"stems/{name}/other.wav", sample_rate=44100, samples=noise)
    write_audio("music/song.wav", seconds=5, sample_rate=44100, channels=2)
    commands = [block.strip() for block in blocks_of((DOCS / "training.md").read_text(), "")]
    assert commands == [
        "beamsplitter dataset check stems",
        "beamsplitter config BandNet --save vocals-net --vocals",
        "beamsplitter train vocals-net stems",
        "beamsplitter train vocals-net stems --resume",
        "beamsplitter separate music -o out --separator vocals-net",
        "make train-demo",  # tests/test_training_demo.py
    ]
    for command in commands[:-1]:
        short = " --max-epochs 2 --batch-size 2" if " train " in command else ""
        told_by(command + short, tmp_path)
    record = json.loads((tmp_path / "vocals-net" / "training.json").read_text())
    assert [each["epoch"] for each in record["epochs"]] == [1, 2]
    stems = {path.stem for path in (tmp_path / "out" / "song").glob("*.flac")}
    assert stems == {"vocals", "residual"}


def test_the_page_on_classifiers_runs(told_by: ToldBy, tmp_path: Path) -> None:
    """On toy sounds: its commands in their order, but for two epochs."""
    page = (DOCS / "classifiers.md").read_text()
    rows = []
    for number in range(8):
        label = ("bird", "frog")[number % 2]
        path = tmp_path / "sounds" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, made_sound(label, number, 6.0).T, SOUND_RATE)
        rows.append((path.stem, label))
    write_labels(tmp_path / "labels.csv", rows)
    soundfile.write(tmp_path / "field.wav", made_sound("bird", 9, 5.0).T, SOUND_RATE)
    commands = blocks_of(page, "")[0].strip().splitlines()
    assert [each.split()[1] for each in commands] == [
        *("spectrograms", "train-classifier", "export", "label")
    ]
    for command in commands:
        told = told_by(command + " --max-epochs 2" * ("train" in command), tmp_path)
        if "train" in command:
            assert "balanced accuracy" in told
    labels = json.loads((tmp_path / "out/field/labels.json").read_text())
    assert [each["start_s"] for each in labels] == [0, 2, 4]
    assert labels[-1]["end_s"] == 5
    (tree,) = blocks_of(page, "text")
    for path in (tmp_path / "animals-net").iterdir():
        assert f"{path.name} " in tree or f"{path.name}/ " in tree
    (table,) = blocks_of(page, "csv")
    (tmp_path / "example.csv").write_text(table)
    names = {line.split(",")[0] for line in table.splitlines()[1:]}
    excerpts = [Excerpt(name, name, 0.0, 1.0) for name in names]
    found = read_label_table(tmp_path / "example.csv", excerpts)
    assert found.is_multi_label
    assert found.classes == ("bird", "cow", "frog")


def test_settings_of_classifiers_are_in_the_table_with_their_defaults() -> None:
    rows = {
        row[0].strip("`"): row[1].strip("`")
        for row in cells_of((DOCS / "classifiers.md").read_text())
        if len(row) == 3
    }
    for name, field in ClassifierSettings.model_fields.items():
        assert yaml.safe_load(rows[name]) == field.default, name


def test_the_page_on_exporting_runs(
    told_by: ToldBy, write_audio: WriteAudio, tmp_path: Path
) -> None:
    write_audio("song.wav", seconds=3, sample_rate=48000, channels=2)
    settings = network_settings(
        {"model_type": "BandNet", "targets": ["vocals"], "hidden_size": 8, "num_bands": 8}
    )
    (tmp_path / "vocals-net").mkdir()
    write_json(tmp_path / "vocals-net" / NETWORK_FILE, settings.model_dump(mode="json"))
    save_trained(tmp_path / "vocals-net", make_model(settings))
    page = (DOCS / "exporting.md").read_text()
    codes = blocks_of(page, "python")
    for code in codes:
        (tmp_path / code.splitlines()[0].removeprefix("# ")).write_text(code)
    for commands in blocks_of(page, ""):
        told_by(commands, tmp_path)
    files = {path.name for path in (tmp_path / "vocals-package").iterdir()}
    assert files == {"model.pt", "metadata.json", "README.md"}
    assert {path.stem for path in (tmp_path / "out/song").glob("*.flac")} == {"vocals", "residual"}
    mixture = read(tmp_path / "song.wav")
    boosted = read(tmp_path / "out-boosted/song/boosted.flac")
    np.testing.assert_allclose(boosted, (2 * mixture).clip(-1, 1), atol=1e-3)
    labels = json.loads((tmp_path / "out-labels/song/labels.json").read_text())
    assert [each["label"] for each in labels] == ["loud"] * 3


def test_the_recipe_of_the_compact_network_is_told() -> None:
    page = (DOCS / "training.md").read_text()
    (told,) = (row[1] for row in cells_of(page) if row[0] == "`BandNet`" and "--lr" in row[1])
    for name, value in RECIPES["BandNet"].items():
        number = "" if value is True else f" {value:g}" if isinstance(value, float) else f" {value}"
        assert f"--{name.replace('_', '-')}{number}" in told


def test_all_settings_of_networks_and_files_of_trainings_are_named() -> None:
    page = (DOCS / "training.md").read_text()
    for name in (*NETWORKS, *get_args(Criterion)):
        assert f"`{name}`" in page
    for file in (NETWORK_FILE, WEIGHTS_FILE, TRAINER_FILE, RECORD_FILE, CHECKPOINT_FILE):
        assert file in page
    rows = (row for row in cells_of(page) if row[0].strip("`") in NETWORKS and len(row) == 3)
    counts = {row[0]: row[2] for row in rows}
    for name, settings in NETWORKS.items():
        with torch.device("meta"):
            network = make_model(settings.model_validate({"targets": ["vocals"]}))
        count = sum(each.numel() for each in network.parameters())
        assert counts[f"`{name}`"] == f"{count:,}"


def test_all_known_models_are_in_the_table_with_their_stems_and_rate() -> None:
    rows = {
        name: row
        for row in cells_of(MODELS)
        for name in re.findall(r"`([\w:-]+)`", row[0])
        if len(row) == 5
    }
    stems: list[str] = []
    for entry in model_registry.read_registry(model_registry.PACKAGED_REGISTRY):
        row = rows.pop(entry.name)
        named = re.findall(r"`(\w+)`", row[1])
        stems = [*stems, *named] if "the same" in row[1] else named
        assert stems == list(entry.stems), entry.name
        assert row[2] == f"{entry.sample_rate / 1000:g} kHz"
        assert ("research only" in row[3]) == ("research only" in entry.licence)
        assert ("no commercial use" in row[3]) == ("no commercial use" in entry.licence)
        assert row[4] == f"`[{EXTRAS[entry.name.split(':')[0]][0]}]`"
    for name in ("nn-filter", "hpss", "none"):
        assert re.findall(r"`(\w+)`", rows.pop(name)[1]) == list(
            describe((SeparatorName(name),)).stems
        )
    assert set(rows) == {"separator", "module:Class"}
    assert all(f"`{kind}" in MODELS for kind in KINDS)


@pytest.mark.parametrize(
    ("options", "others"),
    [
        (HarmonicPercussiveOptions, {}),
        (OpenUnmixOptions, {}),
        (PackageOptions, {"context_seconds": DEFAULT_CONTEXT_S}),
    ],
)
def test_all_options_are_in_the_table_with_their_defaults(
    options: type[BaseModel], others: dict[str, Any]
) -> None:
    rows = {row[1].strip("`"): row[2].strip("`") for row in cells_of(MODELS) if len(row) == 4}
    for name, field in options.model_fields.items():
        assert yaml.safe_load(rows[name]) == others.get(name, field.default), name


def test_all_numbers_of_the_filter_are_in_the_docs() -> None:
    rows = {
        row[0].strip("`"): row[1].strip("`")
        for row in cells_of((DOCS / "separation.md").read_text())
    }
    for name, field in NearestNeighborRecipe.model_fields.items():
        assert yaml.safe_load(rows[name]) == field.default, name


def test_the_memory_that_is_told_is_that_of_the_constants() -> None:
    block = round(RELEASES["htdemucs"].block_s * SAMPLE_RATE) * 2 * 4 / 1e6
    request = BLOCKS_AT_ONCE * block * (1 + len(RELEASES["htdemucs"].stems))
    thread = REQUESTS_AHEAD * request
    # The size of a batch stands in a module that imports torch.
    from beamsplitter.models.separators.device_runner import LARGEST_BATCH

    lanes = LANES * LARGEST_BATCH * block * 2
    told = [row[2] for row in cells_of(MODELS) if len(row) == 3 and re.match(r"[\d.]+$", row[2])]
    assert told == [f"{block:.2f}", *(f"{each:.0f}" for each in (request, thread, thread, lanes))]
    assert f"{4 * thread / 1000:.1f} GB in the workers" in MODELS
    assert f"{(4 * thread + lanes) / 1000:.1f} GB in the process of the GPU" in MODELS


def test_the_registry_in_the_docs_can_be_read(tmp_path: Path) -> None:
    (text,) = (each for each in blocks_of(MODELS, "yaml") if "models:" in each)
    (tmp_path / "registry.yaml").write_text(text)
    package, weights = model_registry.read_registry(tmp_path / "registry.yaml")
    assert (package.kind, weights.kind) == ("package", "weights")
    known = model_registry.read_registry(model_registry.PACKAGED_REGISTRY)
    (same,) = (entry for entry in known if entry.name == weights.name)
    assert [(file.name, file.sha256) for file in weights.files] == [
        (file.name, file.sha256) for file in same.files
    ]


def test_job_sections_in_the_docs_are_valid() -> None:
    sections = [yaml.safe_load(each) for each in blocks_of(MODELS, "yaml")]
    (ensemble,) = (each for each in sections if "separation" in each)
    settings = SplitSettings.model_validate(ensemble)
    assert settings.wanted_stems == ("drums", "bass", "other", "vocals", "residual")


def test_the_variables_in_the_docs_are_those_that_are_read() -> None:
    named = set(re.findall(r"BEAMSPLITTER_\w+", MODELS))
    assert named == {
        model_cache.CACHE_VARIABLE,
        model_cache.MIRROR_VARIABLE,
        model_cache.OFFLINE_VARIABLE,
        model_registry.REGISTRY_VARIABLE,
    }


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.glob("*.md")), ROOT / "README.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        assert (page.parent / path).exists(), target
        assert not heading or heading in headings_of(page.parent / path if path else page), target


def headings_of(page: Path) -> set[str]:
    """What links call the headings of a page, as GitHub makes it of them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_extras_of_the_image_are_installed_with_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    (program,) = re.findall(r'RUN python -c "(import os, tomllib.*?)" >', dockerfile)

    def requirements(extras: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "EXTRAS": extras},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]

    extras = project["optional-dependencies"]
    whole = [*project["dependencies"], *extras["models"]]
    of_demucs = [each for each in extras["demucs"] if each != "beamsplitter[models]"]
    assert len(of_demucs) == len(extras["demucs"]) - 1
    assert requirements("") == whole
    assert requirements("demucs") == [*whole, *of_demucs]
    assert requirements("demucs, dev")[-len(extras["dev"]) :] == extras["dev"]
    containers = (DOCS / "containers.md").read_text()
    assert set(re.findall(r"EXTRAS=(\w+)", containers + dockerfile)) <= set(extras)
