"""Blocks on a device: batches, memory that ends, and the process that serves all workers."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from facts import assert_names
from model_packages import Loudness, write_labeler
from started_commands import have_ended
from torch_separators import Choosy, Hungry, Toy
from warm_command import FORKING

from beamsplitter.models.separators import server
from beamsplitter.models.separators.base import Member, ModelError, Separator, alone
from beamsplitter.models.separators.by_name import SeparatorName, load
from beamsplitter.models.separators.device_runner import DeviceRunner, find_device
from beamsplitter.models.separators.labelling import labels_of
from beamsplitter.models.separators.mixing import Position, RunBlocks, separate_part
from beamsplitter.models.separators.plain_runner import DeviceOptions
from beamsplitter.models.separators.server import (
    ModelServer,
    RemoteRunner,
    ServerSpec,
    _Request,
    runner_of,
)
from beamsplitter.pipelines.local.launch import engine_environment

RATE = 16000
CPU = DeviceOptions(device="cpu")


def blocks_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 1, 2000)).astype(np.float32)


def run_here(separator: Separator, blocks: np.ndarray, options: DeviceOptions = CPU) -> np.ndarray:
    runner = DeviceRunner(alone(separator), options)
    (stems,) = runner(0, [blocks], RATE, range(len(separator.stems)))
    return stems


def expected(blocks: np.ndarray) -> np.ndarray:
    return np.concatenate([run_here(Toy(), block[None]) for block in blocks])


@pytest.mark.parametrize("batch_size", [None, 1, 2, 7, 100])
def test_any_batch_size_gives_the_same(batch_size: int | None) -> None:
    blocks = blocks_of(7)
    made = run_here(Toy(), blocks, DeviceOptions("cpu", batch_size=batch_size))
    np.testing.assert_allclose(made, expected(blocks), atol=1e-5)


@pytest.fixture(autouse=True)
def forked_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers take their imports from here, but for those of processes that a test starts."""
    monkeypatch.setattr(server, "subprocess", FORKING)


PROGRAM_THAT_FORKS = """
import os, sys, time
import torch
from beamsplitter.models.separators import server
from beamsplitter.models.separators.by_name import SeparatorName, load
from beamsplitter.models.separators.plain_runner import DeviceOptions

separators = (SeparatorName("torch_separators:Thoughtful"),)
server.preload(separators, "cpu")
worker = os.fork()
if not worker:
    models = server.open_models(separators, DeviceOptions("cpu", threads=2))
    models.members[0].separator.module(torch.ones(8, 1, 100_000))
    os._exit(0)
until = time.monotonic() + 30
while os.waitpid(worker, os.WNOHANG)[0] == 0:
    if time.monotonic() > until:
        os.kill(worker, 9)
        sys.exit("the worker hangs")
    time.sleep(0.05)
"""


def test_workers_can_be_forked_from_a_process_that_loaded_models(tmp_path: Path) -> None:
    """Though demucs' networks compute there; threads of a pool are not in the forked process."""
    tests = Path(__file__).parent.parent
    environment = {**engine_environment(tmp_path), "PYTHONPATH": str(tests)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM_THAT_FORKS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_threads_of_an_engine_soon_wait_asleep_unless_it_is_said_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that spin take the cores from other workers; OpenMP reads this when torch is loaded."""
    assert int(engine_environment(tmp_path)["GOMP_SPINCOUNT"]) < 10_000
    monkeypatch.setenv("GOMP_SPINCOUNT", "300000")
    assert engine_environment(tmp_path)["GOMP_SPINCOUNT"] == "300000"


def test_out_of_memory_halves_the_batch_for_good_and_loses_nothing() -> None:
    separator, blocks = Hungry(most=3), blocks_of(20)
    made = run_here(separator, blocks, DeviceOptions("cpu", batch_size=16))
    np.testing.assert_allclose(made, expected(blocks), atol=1e-5)
    assert separator.batches == [2] * 10


@pytest.mark.parametrize(("batch_size", "most"), [(1, 1), (4, 4), (8, 3)])
def test_blocks_are_told_as_they_are_done(batch_size: int, most: int) -> None:
    told: list[float] = []
    runner = DeviceRunner(alone(Hungry(most)), DeviceOptions("cpu", batch_size=batch_size))
    made = runner(0, [blocks_of(8), blocks_of(3)], RATE, [0], told.append)
    assert [len(stems) for stems in made] == [8, 3]
    assert told == sorted(set(told)) and told[-1] == 11
    assert max(np.diff([0, *told])) <= most


def test_too_little_memory_for_one_block_is_told() -> None:
    with pytest.raises(ModelError, match=r"^hungry: cpu .*memory"):
        run_here(Hungry(most=0), blocks_of(3), DeviceOptions("cpu", batch_size=2))


def test_only_the_stems_that_are_asked_for_come_back() -> None:
    blocks = blocks_of(2)
    (made,) = DeviceRunner(alone(Toy()), CPU)(0, [blocks], RATE, [1])
    np.testing.assert_array_equal(made[:, 0], run_here(Toy(), blocks)[:, 1])


def test_halves_cost_little() -> None:
    blocks = blocks_of(4)
    exact = run_here(Toy(), blocks)
    half = run_here(Toy(), blocks, DeviceOptions("cpu", precision="bfloat16"))
    assert half.dtype == np.float32
    error = np.square(half - exact).sum() / np.square(exact).sum()
    assert 0 < error < 1e-3


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (lambda blocks: blocks, "(1, 2000)"),
        (lambda blocks: torch.stack([blocks] * 2, 1)[..., :-1], "shape (2, 1, 1999)"),
        (lambda blocks: torch.stack([blocks[:1]] * 2, 1), "1 blocks"),
        (lambda blocks: [blocks], "list"),
        (lambda blocks: blocks.no_such_thing, "2000 samples"),
    ],
)
def test_what_a_model_may_not_give(output: object, said: str) -> None:
    separator = Toy()
    separator.forward = output  # type: ignore[assignment,method-assign]
    with pytest.raises(ModelError) as raised:
        run_here(separator, blocks_of(2), DeviceOptions("cpu", batch_size=2))
    assert str(raised.value).startswith("toy: ")
    assert said in str(raised.value)


@pytest.mark.parametrize("name", ["cuda:99", "mps:7", "cpu:1"])
def test_a_device_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(ModelError, match=f"device {name}: "):
        find_device(name)


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of temporary files: another than pytest's, short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="sockets-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)
        monkeypatch.undo()


@pytest.fixture
def spec(sockets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServerSpec:
    """A server of `Choosy`, with batches of 8."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    options = f'{{"notes": "{tmp_path / "notes"}"}}'
    separator = SeparatorName("torch_separators:Choosy", options)
    return ServerSpec((separator,), DeviceOptions("cpu", batch_size=8))


def notes_of(tmp_path: Path) -> list[tuple[int, int]]:
    lines = (tmp_path / "notes").read_text().splitlines()
    return [(int(pid), int(count)) for pid, count in map(str.split, lines)]


def ask(runner: RemoteRunner, blocks: np.ndarray) -> np.ndarray:
    return np.concatenate(list(runner(0, np.split(blocks, len(blocks)), RATE, (0, 1))))


def test_the_server_gives_what_a_model_here_gives(spec: ServerSpec, tmp_path: Path) -> None:
    runner = RemoteRunner(spec)
    (member,) = runner.members
    here = Choosy(str(tmp_path / "notes"))
    assert member.weights == {"network": 1.0, "rest": 1.0}
    for name in ("name", "stems", "block_lengths", *server.GEOMETRY):
        assert getattr(member.separator, name) == getattr(here, name)
    blocks = blocks_of(5)
    np.testing.assert_allclose(ask(runner, blocks), expected(blocks), atol=1e-5)
    told: list[float] = []
    list(runner(0, [blocks[:3], blocks[3:]], RATE, (0, 1), told.append))
    assert told == [3, 5]


def test_blocks_of_many_clients_share_batches_and_find_their_way_back(
    spec: ServerSpec, tmp_path: Path
) -> None:
    runner = RemoteRunner(spec)
    ask(runner, blocks_of(1))
    mixtures = [blocks_of(30, seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda blocks: ask(runner, blocks), mixtures))
    for stems, blocks in zip(made, mixtures, strict=True):
        np.testing.assert_allclose(stems, expected(blocks), atol=1e-5)
    pids, counts = zip(*notes_of(tmp_path), strict=True)
    assert len(set(pids)) == 1
    assert sum(counts) == 1 + 6 * 30
    assert 1 < max(counts) <= 8


def test_recordings_of_many_lengths_share_a_server(spec: ServerSpec, tmp_path: Path) -> None:
    """The blocks at their ends are of many lengths: none fits into the batch of another."""
    remote, members = RemoteRunner(spec), alone(Choosy(str(tmp_path / "here")))
    mixtures = [
        blocks_of(1, seed)[0, :, :samples] for seed, samples in enumerate(range(3, 2000, 99))
    ]

    def separate(mixture: np.ndarray, members: Sequence[Member], run: RunBlocks) -> np.ndarray:
        samples = mixture.shape[-1]
        position = Position(0, samples, 0, samples)
        made = separate_part(mixture, RATE, members, run, position=position, stems=("network",))
        return made["network"]

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda each: separate(each, remote.members, remote), mixtures))
    for stem, mixture in zip(made, mixtures, strict=True):
        here = separate(mixture, members, runner_of(members, DeviceOptions("cpu")))
        np.testing.assert_allclose(stem, here, atol=1e-5)


def test_labels_of_many_recordings_come_from_a_server(sockets: Path, tmp_path: Path) -> None:
    package = write_labeler(tmp_path / "net", Loudness(), labels=["quiet", "loud"])
    spec = ServerSpec(
        (SeparatorName.of(package, {"block_seconds": 1}),), DeviceOptions("cpu", batch_size=8)
    )
    remote, (here,) = RemoteRunner(spec), load(spec.separators)
    run = runner_of((here,), DeviceOptions("cpu"))
    rise = np.linspace(0, 4, 40_000, dtype=np.float32)
    mixtures = [
        (rise * blocks_of(20, seed).reshape(1, -1))[:, : 30_001 + 1999 * seed] for seed in range(6)
    ]
    with ThreadPoolExecutor(6) as pool:
        labeler = remote.members[0].separator
        made = list(pool.map(lambda each: labels_of(each, labeler, remote), mixtures))
    assert made == [labels_of(each, here.separator, run) for each in mixtures]
    assert {label.text for labels in made for label in labels} == {"quiet", "loud"}


def test_requests_that_do_not_fit_stand_between_those_that_do() -> None:
    options = DeviceOptions("cpu", batch_size=8)
    toys = ModelServer(ServerSpec((SeparatorName("torch_separators:Toy"),), options))
    blocks = [blocks_of(1)[..., :samples] for samples in (2000, 470, 2000, 999, 470)]
    with toys.changed:
        requests = [_Request(0, RATE, (0,), each, Future()) for each in blocks]
        toys.waiting.extend(requests)
        toys.changed.notify()
    for request, each in zip(requests, blocks, strict=True):
        made = request.done.result(timeout=30)
        np.testing.assert_allclose(made, expected(each)[:, :1], atol=1e-5)


def test_one_client_s_fault_does_not_cost_the_others(spec: ServerSpec) -> None:
    runner = RemoteRunner(spec)
    mixtures = [blocks_of(20, seed) for seed in range(6)]
    for loud in mixtures[::3]:
        loud[7] *= 10

    def separate(blocks: np.ndarray) -> np.ndarray | str:
        try:
            return ask(runner, blocks)
        except ModelError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(separate, mixtures))
    for refused in made[::3]:
        assert_names(refused, "choosy: ", "2000 samples", "ValueError: too loud")
    for index in (1, 2, 4, 5):
        np.testing.assert_allclose(made[index], expected(mixtures[index]), atol=1e-5)


def test_a_server_that_is_killed_is_started_again(spec: ServerSpec, tmp_path: Path) -> None:
    runner, blocks = RemoteRunner(spec), blocks_of(3)
    ask(runner, blocks)
    first = notes_of(tmp_path)[0][0]
    os.kill(first, signal.SIGKILL)
    np.testing.assert_allclose(ask(runner, blocks), expected(blocks), atol=1e-5)
    assert len({pid for pid, _ in notes_of(tmp_path)}) == 2


def answers(runner: RemoteRunner, mixtures: list[np.ndarray]) -> list[Any]:
    """What several clients get at once: stems, or what went wrong."""

    def separate(blocks: np.ndarray) -> np.ndarray | str:
        try:
            return ask(runner, blocks)
        except ModelError as error:
            return str(error)

    with ThreadPoolExecutor(len(mixtures)) as pool:
        return list(pool.map(separate, mixtures))


def faulty(spec: ServerSpec, fault: str) -> ServerSpec:
    separator = SeparatorName("torch_separators:Faulty", f'{{"fault": "{fault}"}}')
    return ServerSpec((separator,), spec.options)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("unmeasured", "no memory to measure with"), ("no lane", "RuntimeError: no stream")],
)
def test_a_server_that_can_run_nothing_answers_each_request(
    fault: str, said: str, spec: ServerSpec
) -> None:
    runner = RemoteRunner(faulty(spec, fault))
    for _ in range(2):
        assert answers(runner, [blocks_of(4, seed) for seed in range(5)]) == [said] * 5


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("exits", "SystemExit: no licence"),
        ("poisoned", "the process that runs the models ended each time"),
    ],
)
def test_what_ends_a_server_s_work_costs_its_own_recording_only(
    fault: str, said: str, spec: ServerSpec
) -> None:
    runner = RemoteRunner(faulty(spec, fault))
    loud, quiet = blocks_of(2, 1), blocks_of(2, 2)
    loud *= 10
    (answer,) = answers(runner, [loud])
    assert said in answer
    there = ask(RemoteRunner(faulty(spec, "")), quiet)
    np.testing.assert_allclose(ask(runner, quiet), there, atol=1e-5)


@pytest.mark.parametrize("fault", ["hangs", "stops"])
def test_a_server_that_gives_no_answer_is_ended_and_named(
    fault: str, spec: ServerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_LIMIT_S", 1.0)
    runner = RemoteRunner(faulty(spec, fault))
    process = psutil.Process(runner._connection().process)
    loud, quiet = blocks_of(1, 1), blocks_of(2, 2)
    loud *= 10
    (answer,) = answers(runner, [loud])
    assert_names(answer, "torch_separators:Faulty: ", "no answer", "1 s")
    process.wait(30)
    assert ask(runner, quiet).shape[0] == 2


def test_a_stopped_server_does_not_hold_up_new_clients(
    spec: ServerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "GREETING_LIMIT_S", 1.0)
    first = RemoteRunner(spec)
    process = psutil.Process(first._connection().process)
    process.suspend()
    np.testing.assert_allclose(
        ask(RemoteRunner(spec), blocks_of(2)), expected(blocks_of(2)), atol=1e-5
    )
    process.kill()


def test_what_is_no_request_is_answered_or_ends_its_connection(spec: ServerSpec) -> None:
    connection = server.connect(spec).socket
    for header in ({}, {"ask": "run"}, {"ask": "sing", "member_index": 7}):
        server.send(connection, header, None)
        assert "error" in server.receive(connection)[0]
    connection.sendall(server._SIZES.pack(3, 0) + b"{{{")
    with pytest.raises(EOFError):
        server.receive(connection)
    ask(RemoteRunner(spec), blocks_of(1))


def test_processes_take_gpus_in_turn(sockets: Path) -> None:
    assert [server.next_device(3) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_clients_of_several_threads_and_runners_share_one_server(
    spec: ServerSpec, tmp_path: Path
) -> None:
    barrier = threading.Barrier(4)

    def separate(_: int) -> None:
        barrier.wait()
        ask(RemoteRunner(spec), blocks_of(2))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(separate, range(4)))
    assert len({pid for pid, _ in notes_of(tmp_path)}) == 1


def test_the_server_ends_with_its_last_client(spec: ServerSpec, tmp_path: Path) -> None:
    runner = RemoteRunner(spec)
    ask(runner, blocks_of(1))
    pid = notes_of(tmp_path)[0][0]
    process = psutil.Process(pid)
    del runner
    assert have_ended([process], limit_s=60)


def test_a_model_that_can_t_be_loaded_is_told(spec: ServerSpec) -> None:
    absent = ServerSpec((SeparatorName("torch_separators:Absent"),), spec.options)
    with pytest.raises(ModelError, match=r"^absent: .*weights"):
        RemoteRunner(absent)


def test_a_long_path_of_temporary_files_is_no_matter(
    spec: ServerSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / ("x" * 90)).mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "deep" / ("x" * 90)))
    blocks = blocks_of(1)
    np.testing.assert_allclose(ask(RemoteRunner(spec), blocks), expected(blocks), atol=1e-5)


def test_a_folder_that_others_can_open_is_refused(spec: ServerSpec, sockets: Path) -> None:
    folder = sockets / f"beamsplitter-models-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(ModelError, match="others can open it"):
        RemoteRunner(spec)
