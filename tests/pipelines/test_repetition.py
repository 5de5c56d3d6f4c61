"""Engines do work again, late, twice at once and in any order; storage fails in between.

Whatever they do, the tree is, byte for byte, that of an undisturbed run; each event is answered,
and nothing that is published is deleted or changed. BEAMSPLITTER_SEEDS says how many seeds are
tried of each scenario; `make repetition` tries thousands.
"""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_stream
from conftest import result_files, without_times
from model_packages import Loudness, write_labeler
from repeated_graphs import (
    BROKEN,
    GONE,
    LONG,
    LOUD,
    LOUD_IN_PART,
    MUSIC,
    NET,
    RATE,
    SHORT,
    TRUTH,
    Scenario,
    all_answered,
    clear,
    draw_once_only,
    graph_of,
    write,
)
from repeating_engine import NONE, Engine, Mischief
from storage_server import StorageServer

from beamsplitter.pipelines.events.sources import CreateEvents
from beamsplitter.pipelines.run import build
from beamsplitter.storage.gcs import GcsFiles
from beamsplitter.transforms import attempts
from beamsplitter.transforms.klio.message import new_message

SEEDS = int(os.environ.get("BEAMSPLITTER_SEEDS", "4"))
CHUNK = 10
REPEATING = Mischief(repeats=0.1, faults=0.01, turns=0.3, most=12)
DOUBLING = Mischief(repeats=0.05, doubles=0.05, faults=0.01, turns=0.3, most=6)


@pytest.fixture(autouse=True)
def quick_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_once_only(monkeypatch)
    # The engine lets one of its threads run at a time: none can wait for another.
    monkeypatch.setattr(attempts, "ALONE_TIMEOUT_S", 0)


FAILING = {"separator": "separators:FailingOnLoud", "options": {"block_samples": RATE}}
FAILING_PARTS = (LONG, LOUD_IN_PART, LOUD)
HPSS = {"separator": "hpss"}
FEATURES = {
    "sets": {"log_mel": {"n_fft": 256, "n_mels": 8}, "complex": {"n_fft": 16, "hop_length": 64}},
    "of": ["mixture", "background"],
    "excerpts": {"take": "every", "duration_s": 7, "hop_s": 5},
    "shards": "webdataset",
    "shard_mb": 0.02,
}
SCENARIOS = {
    "batch": Scenario(),
    "stream": Scenario(is_stream=True),
    "pictures": Scenario(plots=True),
    "pictures-of-a-stream": Scenario(plots=True, is_stream=True),
    "same-event-twice": Scenario(elements=(*MUSIC, LONG, SHORT), is_stream=True),
    "after-other-settings": Scenario(stems={"select": ["background"]}, before=Scenario(plots=True)),
    "pictures-later": Scenario(plots=True, before=Scenario()),
    "stream-over-another": Scenario(
        is_stream=True, before=Scenario(separation={"duration_s": 12}, is_stream=True)
    ),
    "fan-out": Scenario(
        join="cogbk", separation={"duration_s": 6, "options": {"foreground": "mask"}}
    ),
    "model": Scenario(separation=HPSS),
    "two-lossy-stems": Scenario(
        separation=HPSS,
        stems={
            "format": "m4a",
            "bit_rate_kbps": 16,
            "sample_rate": 8000,
            "peaks": "rescale",
            "two_stems": "harmonic",
        },
        plots=True,
    ),
    "scores": Scenario(scores=True),
    "scores-later-in-a-stream": Scenario(scores=True, is_stream=True, before=Scenario()),
    "labels-features-and-page": Scenario(labels=True, features=FEATURES, report=True),
    "features-and-page-later-in-a-stream": Scenario(
        features=FEATURES, report=True, is_stream=True, before=Scenario()
    ),
    "parts-fail": Scenario(separation=FAILING, elements=FAILING_PARTS),
    "parts-fail-in-a-stream": Scenario(separation=FAILING, elements=FAILING_PARTS, is_stream=True),
}


@dataclasses.dataclass
class Prepared:
    """A graph, the tree that it writes to, and what an undisturbed run leaves there."""

    scenario: Scenario
    out: Path
    start: Path
    pipeline: beam.Pipeline
    watched: dict[str, beam.PCollection]
    expected: dict[str, bytes]

    def reset(self) -> None:
        """The tree as it was before the run."""
        shutil.rmtree(self.out, ignore_errors=True)
        if self.start.exists():
            shutil.copytree(self.start, self.out)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Prepared]:
    """Each scenario's graph, built once."""
    folder = tmp_path_factory.mktemp("repetition")
    write(folder / "music" / LONG, 25, 0)
    write(folder / "music" / SHORT, 2, 1)
    for seed, stem in enumerate(("vocals", "drums")):
        write(folder / "music" / TRUTH / "long" / f"{stem}.wav", 25, 4 + seed)
        write(folder / "music" / TRUTH / "a" / "short" / f"{stem}.wav", 2, 6 + seed)
    write_labeler(folder / "music" / NET, Loudness())
    write(folder / "music" / LOUD_IN_PART, 25, 2, clicks_s=(15,))
    write(folder / "music" / LOUD, 25, 3, clicks_s=(5, 15, 24))
    (folder / "music" / BROKEN).write_bytes(b"RIFF\0\0")

    @functools.cache
    def prepare(name: str) -> Prepared:
        scenario = SCENARIOS[name]
        out, start = folder / name / "out", folder / name / "before"
        if scenario.before:
            pipeline, watched = graph_of(scenario.before, folder / "music", out)
            Engine(0, NONE).run(pipeline, watched)
            clear(out)
            shutil.copytree(out, start)
        pipeline, watched = graph_of(scenario, folder / "music", out)
        assert all_answered(scenario.elements, Engine(0, NONE).run(pipeline, watched))
        clear(out)
        return Prepared(scenario, out, start, pipeline, watched, result_files(out))

    return prepare


class Watch:
    """Sees that what a manifest of this run names is neither deleted nor changed."""

    def __init__(self, out: Path, expected: dict[str, bytes]) -> None:
        self.out = out
        self.expected = expected
        self.published: set[str] = set()

    def __call__(self, operation: str, path: str) -> None:
        if operation not in ("writing", "remove") or not path.startswith(f"{self.out}/"):
            return
        name = path.removeprefix(f"{self.out}/")
        if name.endswith("manifest.json") and operation == "writing":
            content = self._read(name)
            assert content == self.expected[name]
            folder = os.path.dirname(name)
            self.published |= {f"{folder}/{file['name']}" for file in json.loads(content)["files"]}
            self.published.add(name)
        if name in self.published:
            assert Path(path).exists(), f"{name} was deleted"
        for each in self.published & {name}:
            assert self._read(each) == self.expected[each], f"{each} was changed"

    def _read(self, name: str) -> bytes:
        data = (self.out / name).read_bytes()
        return without_times(data) if name.endswith("manifest.json") else data


@pytest.mark.parametrize("first_seed", range(0, SEEDS, CHUNK))
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_tree_is_that_of_an_undisturbed_run(
    name: str, first_seed: int, prepared: Callable[[str], Prepared]
) -> None:
    each = prepared(name)
    for seed in range(first_seed, min(first_seed + CHUNK, SEEDS)):
        each.reset()
        watch = Watch(each.out, each.expected)
        engine = Engine(seed, (REPEATING, DOUBLING)[seed % 2], note=watch)
        results = engine.run(each.pipeline, each.watched)
        clear(each.out)
        assert result_files(each.out) == each.expected, f"seed {seed}: {engine.storage.log}"
        assert all_answered(each.scenario.elements, results), f"seed {seed}"


@pytest.mark.parametrize("is_stream", [False, True], ids=["batch", "stream"])
def test_a_bucket_bears_it_too(is_stream: bool, gcs: StorageServer, tmp_path: Path) -> None:
    write(tmp_path / "music" / LONG, 25, 0)
    write(tmp_path / "music" / SHORT, 2, 1)
    gcs.upload(tmp_path / "music", "music")
    scenario = Scenario(is_stream=is_stream, elements=(LONG, SHORT, GONE))
    music, out = f"gs://{gcs.bucket.name}/music", f"gs://{gcs.bucket.name}/out"
    pipeline, watched = graph_of(scenario, music, out)

    def results(name: str) -> dict[str, bytes]:
        clear(out)
        gcs.download("out", tmp_path / name)
        for each in gcs.names("out"):
            gcs.bucket.delete_blob(each)
        return result_files(tmp_path / name)

    Engine(0, NONE).run(pipeline, watched)
    expected = results("undisturbed")
    assert f"{LONG[:-4]}/manifest.json" in expected
    for seed in range(max(3, SEEDS // 10)):
        engine = Engine(seed, (REPEATING, DOUBLING)[seed % 2], files=GcsFiles)
        answers = engine.run(pipeline, watched)
        assert results(f"seed-{seed}") == expected, f"seed {seed}: {engine.storage.log}"
        assert all_answered(scenario.elements, answers), f"seed {seed}"


def test_the_engine_does_what_it_is_to_do(prepared: Callable[[str], Prepared]) -> None:
    each = prepared("stream")
    engines = []
    for seed in range(4):
        each.reset()
        engine = Engine(seed, Mischief(repeats=0.3, doubles=0.3, faults=0.02, turns=0.3))
        engine.run(each.pipeline, each.watched)
        engines.append(engine)
    assert all(engine.repeated > 3 and engine.storage.operations > 150 for engine in engines)
    assert any(engine.storage.log for engine in engines)


@pytest.mark.parametrize("name", ["batch", "stream", "after-other-settings"])
def test_a_lost_file_would_be_seen(
    name: str, prepared: Callable[[str], Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts of a recording removed before its manifest is written, as it once was."""
    from beamsplitter.transforms.publishing import JoinParts

    apply = JoinParts.apply

    def hasty(self: JoinParts, record: Any) -> Any:
        tracks = apply(self, record)
        for track in tracks:
            for _, _, part in track.part_files:
                self.tree.remove(part)
        return tracks

    monkeypatch.setattr(JoinParts, "apply", hasty)
    each = prepared(name)

    def is_seen(seed: int) -> bool:
        each.reset()
        with contextlib.suppress(AssertionError):
            Engine(seed, Mischief(repeats=0.5, most=40)).run(each.pipeline, each.watched)
        clear(each.out)
        return result_files(each.out) != each.expected

    assert any(map(is_seen, range(10)))


@pytest.mark.parametrize("kind", ["batch", "pictures"])
def test_beams_own_runner_may_run_each_bundle_twice(
    kind: str, prepared: Callable[[str], Prepared], tmp_path: Path
) -> None:
    each = prepared(kind)
    each.reset()
    with beam.Pipeline(runner=FnApiRunner(bundle_repeat=1)) as pipeline:
        job = each.scenario.job(each.out.parents[1] / "music", each.out)
        build(job, pipeline | CreateEvents(MUSIC), local_workers=1)
    clear(each.out)
    assert result_files(each.out) == each.expected


@pytest.mark.parametrize("name", ["batch", "stream"])
def test_a_failing_operation_at_any_place_loses_nothing(
    name: str, prepared: Callable[[str], Prepared]
) -> None:
    """Each operation fails in turn, before and after it was done."""
    each = prepared(name)
    each.reset()
    undisturbed = Engine(0, NONE)
    undisturbed.run(each.pipeline, each.watched)
    for number in range(1, undisturbed.storage.operations + 1, 1 if SEEDS > 20 else 5):
        each.reset()
        engine = FailingOnce(number)
        results = engine.run(each.pipeline, each.watched)
        clear(each.out)
        assert result_files(each.out) == each.expected, engine.storage.log
        assert all_answered(each.scenario.elements, results)


def test_beams_runner_of_streams_repeats_what_failed_and_loses_nothing(
    prepared: Callable[[str], Prepared],
) -> None:
    each = prepared("stream")
    undisturbed = Engine(0, NONE)
    each.reset()
    undisturbed.run(each.pipeline, each.watched)
    job = each.scenario.job(each.out.parents[1] / "music", each.out)
    messages = [new_message(element).SerializeToString() for element in MUSIC]
    for number in range(3, undisturbed.storage.operations, undisturbed.storage.operations // 6):
        each.reset()
        storage = FailingOnce(number).storage
        options = PipelineOptions([], runner="BundleBasedDirectRunner", streaming=True)
        with storage.installed(), beam.Pipeline(options=options) as pipeline:
            source = test_stream.TestStream().add_elements(messages)
            build(job, pipeline | source, attempts=attempts.new_attempts())
        clear(each.out)
        assert len(storage.log) == 1
        assert result_files(each.out) == each.expected, storage.log


class FailingOnce(Engine):
    """One operation fails, once."""

    def __init__(self, number: int) -> None:
        super().__init__(0, dataclasses.replace(NONE, faults=1))
        self.number = number

    def draws(self, probability: float) -> bool:
        return probability == self.mischief.faults and self.storage.operations == self.number


@pytest.mark.parametrize("is_stream", [False, True], ids=["batch", "stream"])
@pytest.mark.parametrize("first_seed", range(0, SEEDS, CHUNK))
def test_a_recording_that_is_replaced_meanwhile(
    first_seed: int, is_stream: bool, tmp_path: Path
) -> None:
    """Two generations never meet: in the end there is the newer one, or a dead letter says so."""
    music, out = tmp_path / "music", tmp_path / "out"
    write(music / LONG, 25, 7)
    scenario = Scenario(is_stream=is_stream, elements=(LONG,))
    pipeline, watched = graph_of(scenario, music, out)
    newer = (music / LONG).read_bytes()
    Engine(0, NONE).run(pipeline, watched)
    clear(out)
    expected = stems_of(out)
    for seed in range(first_seed, min(first_seed + CHUNK, SEEDS)):
        shutil.rmtree(out)
        write(music / LONG, 25, 0)
        engine = Engine(seed, REPEATING)
        at = engine.random.randint(1, 250)

        def replace(operation: str, path: str, engine: Engine = engine, at: int = at) -> None:
            if engine.storage.operations >= at and (music / LONG).read_bytes() != newer:
                (music / LONG).write_bytes(newer)
                if is_stream:
                    engine.add(new_message(LONG).SerializeToString())

        engine.storage.note = replace
        results = engine.run(pipeline, watched)
        clear(out)
        was_replaced = (music / LONG).read_bytes() == newer
        assert all_answered((LONG,) * (1 + (was_replaced and is_stream)), results)
        if was_replaced and not results["failures"]:
            assert stems_of(out) == expected or not is_stream, f"seed {seed}, replaced at {at}"
        (music / LONG).write_bytes(newer)
        # What is missing is made by the next event, or run.
        Engine(seed, NONE).run(pipeline, watched)
        clear(out)
        assert stems_of(out) == expected, f"seed {seed}, replaced at {at}"


def stems_of(out: Path) -> dict[str, bytes]:
    """Without the manifest, which names the time at which the input was written."""
    return {name: data for name, data in result_files(out).items() if name.endswith(".wav")}
