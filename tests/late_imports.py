"""What finding choruses imports that was not there when its process began."""

import sys

from beamsplitter.pipelines.local.chorus_launch import ChorusTask, find_in_file


def late_imports(task: ChorusTask) -> set[str]:
    """The names of the modules."""
    before = {*sys.modules}
    assert find_in_file(task).failure is None
    return {*sys.modules} - before
