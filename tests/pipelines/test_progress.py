"""What a person sees of a run."""

from beamsplitter.pipelines.commands.progress import failure_text


def test_what_steers_a_terminal_is_shown_and_not_sent() -> None:
    line = {"element": "ä\n\x1b[2Jb\r", "message": "is not there"}
    assert failure_text(line).plain == r"failed ä\n\x1b[2Jb\r: is not there"
