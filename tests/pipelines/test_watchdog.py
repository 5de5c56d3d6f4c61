"""When a process counts as hanging."""

from pathlib import Path
from typing import Any

import pytest

from beamsplitter.pipelines.job.job_config import parse_job
from beamsplitter.pipelines.local import watchdog
from beamsplitter.pipelines.local.watchdog import CHECK_EVERY_S, LONGEST_CHECK_S, Watchdog


def job(**separation: Any) -> Any:
    plain = {"job_name": "watched", "separation": separation}
    return parse_job({**plain, "limits": {"step_s": 20, "step_times_length": 2}}, source="job")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now_s[0])
    return now_s


def tell(folder: Path, count: int) -> None:
    line = f'{{"count": {count}, "step": "GetSTFT", "element": "a.wav", "length_s": 5}}\n'
    (folder / "at-7").write_text(line)


def test_a_step_hangs_after_its_limit_and_a_new_one_has_all_its_time(
    tmp_path: Path, clock: list[float]
) -> None:
    watched = Watchdog(tmp_path, job())
    hangs = []
    for count, steps in ((1, 58), (2, 100)):
        tell(tmp_path, count)
        for _ in range(steps):
            clock[0] += CHECK_EVERY_S
            if hang := watched.find_hang():
                hangs.append((clock[0], hang.process, hang.step, hang.element, hang.limit_s))
                break
    # The first look at the second is at 29.5 s, and its limit 20 + 2 * 5 s.
    assert hangs == [(60.0, 7, "GetSTFT", "a.wav", 30.0)]


def test_what_is_between_steps_or_half_written_does_not_hang(
    tmp_path: Path, clock: list[float]
) -> None:
    watched = Watchdog(tmp_path, job())
    for text in ("null\n", '{"count": 1, "st'):
        (tmp_path / "at-7").write_text(text)
        for _ in range(100):
            clock[0] += 1
            assert watched.find_hang() is None


def test_while_the_launcher_itself_is_stopped_no_step_hangs(
    tmp_path: Path, clock: list[float]
) -> None:
    watched = Watchdog(tmp_path, job())
    tell(tmp_path, 1)
    for _ in range(int(30 / LONGEST_CHECK_S) + 1):
        clock[0] += 3600
        assert watched.find_hang() is None
    clock[0] += 3600
    assert watched.find_hang()


@pytest.mark.parametrize(
    ("separation", "passes"),
    [
        ({}, 1),
        ({"separator": "hpss", "shifts": 3}, 4),
        ({"ensemble": [{"separator": "hpss"}, {"separator": "nn-filter"}], "shifts": 1}, 4),
    ],
)
def test_the_limit_counts_the_passes_of_models(
    tmp_path: Path, separation: dict[str, Any], passes: int
) -> None:
    assert Watchdog(tmp_path, job(**separation)).limit_s(100) == 20 + 200 * passes
