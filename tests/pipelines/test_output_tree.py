"""The output tree over any history: runs, kills, deletions, other inputs and jobs, two at once.

Whatever came before, a run that ends leaves of each recording just what a run on an empty tree
makes, and no file lies about that neither a manifest names nor a killed run left.
"""

import os
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import result_files
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from repeated_graphs import (
    LONG,
    SHORT,
    Scenario,
    all_answered,
    clear,
    draw_once_only,
    graph_of,
    write,
)
from repeating_engine import NONE, Engine, Killed, Mischief
from result_checks import FILES_OF_RUN, manifests, read_json

from beamsplitter.transforms import attempts

HISTORIES = int(os.environ.get("BEAMSPLITTER_SEEDS", "20")) // 3
SECONDS = {LONG: 21, SHORT: 1.5}
JOBS = (
    Scenario(elements=(LONG, SHORT)),
    Scenario(elements=(LONG, SHORT), plots=True),
    Scenario(elements=(LONG, SHORT), stems={"format": "flac", "select": ["background"]}),
    Scenario(elements=(LONG, SHORT), separation={"start_s": 0.2}, plots=True),
)
# Plots of the same stems, that another job made, stay.
PLOTTED = {0: 1}
MISCHIEF = Mischief(repeats=0.05, faults=0.01, most=3)
# A file that is written within a tick of the clock after its manifest is not known to be newer.
TICK_S = 0.01


class Histories(RuleBasedStateMachine):
    """The folder of the recordings, that of the results, and what is to be made of them."""

    made: ClassVar[dict[Any, dict[str, bytes]]] = {}
    """What an empty tree gets, by job, name and version of a recording."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="beamsplitter-"))
        self.music, self.out = self.folder / "music", self.folder / "out"
        self.versions: dict[str, int] = {}
        self.left: set[str] = set()
        """What killed runs have left."""
        self.job = 0
        self.graphs: dict[tuple[int, int], Any] = {}
        for name in (LONG, SHORT):
            self.change_an_input(name, 0)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(name=st.sampled_from([LONG, SHORT]), version=st.integers(0, 1))
    def change_an_input(self, name: str, version: int) -> None:
        self.versions[name] = version
        write(self.music / name, SECONDS[name], version)

    @precondition(lambda self: len(self.versions) > 1)
    @rule(name=st.sampled_from([LONG, SHORT]))
    def delete_an_input(self, name: str) -> None:
        del self.versions[name]
        (self.music / name).unlink()

    @rule(job=st.integers(0, len(JOBS) - 1))
    def change_the_job(self, job: int) -> None:
        self.job = job

    @rule(seed=st.integers(0, 10**6), is_damaged=st.booleans())
    def make_a_lost_result_again(self, seed: int, is_damaged: bool) -> None:
        """One that is gone, or has other content of the same length."""
        self.run(seed)
        folders = [os.path.splitext(name)[0] for name in self.versions]
        paths = sorted(path for folder in folders for path in (self.out / folder).iterdir())
        path = random.Random(seed).choice(paths)
        if is_damaged and path.name != "manifest.json":
            time.sleep(TICK_S)
            path.write_bytes(bytes(path.stat().st_size))
        else:
            path.unlink()
        self.run(seed)

    @rule(seed=st.integers(0, 10**6))
    def run(self, seed: int) -> None:
        results = Engine(seed, MISCHIEF).run(*self._graph())
        assert all_answered(JOBS[self.job].elements, results)
        self._check()

    @rule(seed=st.integers(0, 10**6))
    def two_runs_at_once(self, seed: int) -> None:
        engine = Engine(seed, MISCHIEF)
        for results in engine.run_together([self._graph(), self._graph(1)]):
            assert all_answered(JOBS[self.job].elements, results)
        self._check()

    @rule(seed=st.integers(0, 10**6), at=st.integers(1, 150))
    def run_that_is_killed(self, seed: int, at: int) -> None:
        try:
            Engine(seed, MISCHIEF, kill_at=at).run(*self._graph())
        except Killed:
            clear(self.out)
            self.left |= {*result_files(self.out)} - self._named()
        else:
            self._check()

    def _graph(self, number: int = 0) -> tuple[Any, Any]:
        key = (self.job, number)
        if key not in self.graphs:
            self.graphs[key] = graph_of(JOBS[self.job], self.music, self.out)
        return self.graphs[key]

    def _named(self) -> set[str]:
        """All files that there are to be."""
        named = set(FILES_OF_RUN)
        for manifest in manifests(self.out):
            folder = manifest.parent.relative_to(self.out)
            named |= {str(folder / file["name"]) for file in read_json(manifest)["files"]}
            named.add(str(folder / manifest.name))
        return named

    def _check(self) -> None:
        clear(self.out)
        files = result_files(self.out)
        assert {*files} - self._named() <= self.left
        for name, version in self.versions.items():
            folder = os.path.splitext(name)[0] + "/"
            here = {path: data for path, data in files.items() if path.startswith(folder)}
            expected = self._made(name, version)
            for path, data in expected.items():
                if path.endswith("manifest.json"):
                    # It names the input with its time.
                    named = {folder + file["name"] for file in read_json(self.out / path)["files"]}
                    assert named >= {each for each in expected if each != path}
                    for kept in named - expected.keys():
                        assert here[kept] == self._made(name, version, PLOTTED[self.job])[kept]
                else:
                    assert here[path] == data, path

    def _made(self, name: str, version: int, job: int | None = None) -> dict[str, bytes]:
        job = self.job if job is None else job
        key = (job, name, version)
        if key not in self.made:
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder, "music", name), SECONDS[name], version)
                Engine(0, NONE).run(
                    *graph_of(JOBS[job], Path(folder, "music"), Path(folder, "out"))
                )
                clear(Path(folder, "out"))
                files = result_files(Path(folder, "out"))
            self.made[key] = {
                path: data for path, data in files.items() if path not in FILES_OF_RUN
            }
        return self.made[key]


@pytest.fixture(autouse=True)
def quick_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_once_only(monkeypatch)
    # As in test_repetition: a thread of the engine that waited for another would wait in vain.
    monkeypatch.setattr(attempts, "ALONE_TIMEOUT_S", 0)


class TestHistories(Histories.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(
        max_examples=HISTORIES,
        stateful_step_count=8,
        deadline=None,
        # To make a history shorter takes minutes, and tells little.
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
