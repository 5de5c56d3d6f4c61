"""How many cores a job takes for its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# A mount namespace of its own, where the files of a container's control group are as they are
# there.
IN_CONTAINER = """
mount -t tmpfs none /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/cpu && cp -r "$1"/. /sys/fs/cgroup
exec "$2" -c "from beamsplitter.pipelines.local.cores import available_cores as a; print(a())"
"""
ALONE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", IN_CONTAINER, "sh"]


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "6400000 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_a_container_has_the_cores_of_its_quota(
    tmp_path: Path, files: dict[str, str], cores: int | None
) -> None:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    line = [*ALONE, str(tmp_path / "cgroup"), sys.executable]
    run = subprocess.run(line, capture_output=True, text=True)
    if "unshare" in run.stderr or "Operation not permitted" in run.stderr:
        pytest.skip("no namespaces on this machine")
    assert run.stdout.strip() == str(cores or len(os.sched_getaffinity(0))), run.stderr


def test_affinity_counts() -> None:
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
        "from beamsplitter.pipelines.local.cores import available_cores as a; print(a())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "1\n", run.stderr
