"""The example job files, which lie in the package."""

import importlib.resources
from pathlib import Path


def write_job_configs(folder: Path) -> list[Path]:
    """Write the example job files into a folder; those that are there already stay as they are.

    Returns
    -------
    Those that were written
    """
    folder.mkdir(parents=True, exist_ok=True)
    package = __name__.partition(".")[0]
    written = []
    for file in sorted(
        importlib.resources.files(package).joinpath("job-configs").iterdir(),
        key=lambda each: each.name,
    ):
        path = folder / file.name
        if not path.exists():
            path.write_bytes(file.read_bytes())
            written.append(path)
    return written
