"""The root of all errors that a user can mend: a line that says what is wrong and what to do."""


class BeamsplitterError(Exception):
    """What ends a command, or costs a recording, for a reason that its message gives.

    Attributes
    ----------
    exit_code : of a command that it ends: 2 where nothing could be done, 1 where it failed in the
        end
    """

    exit_code = 2
