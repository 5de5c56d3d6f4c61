"""Files of a job, wherever they lie: reading, writing atomically, removing."""

from .file_facts import (
    GCS_SCHEME,
    Access,
    FileStat,
    StorageError,
    UnusableStorageError,
    crc32c_of,
    scheme_of,
)
from .files import Storage, absolute, source_files_of
from .output_tree import (
    DEAD_LETTER_FOLDER,
    DEAD_LETTERS,
    RUN_IDENTITY_VARIABLE,
    WORK_FOLDER,
    OutputTree,
    run_identity,
    scratch_names,
)

__all__ = [
    "DEAD_LETTERS",
    "DEAD_LETTER_FOLDER",
    "GCS_SCHEME",
    "RUN_IDENTITY_VARIABLE",
    "WORK_FOLDER",
    "Access",
    "FileStat",
    "OutputTree",
    "Storage",
    "StorageError",
    "UnusableStorageError",
    "absolute",
    "crc32c_of",
    "run_identity",
    "scheme_of",
    "scratch_names",
    "source_files_of",
]
