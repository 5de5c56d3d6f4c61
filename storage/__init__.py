"""Files of a job, wherever they lie: reading, writing atomically, removing."""

from .file_facts import (
    GCS_SCHEME,
    Access,
    FileStat,
    StorageError,
    UnusableStorageError,
    crc32c_of,
    scheme_of,
    use_access,
)
from .files import (
    absolute,
    files_of,
    list_names,
    open_for_reading,
    read_bytes,
    sha256_of,
    source_files_of,
    stat_file,
)
from .output_tree import (
    DEAD_LETTER_FOLDER,
    DEAD_LETTERS,
    RUN_IDENTITY_VARIABLE,
    WORK_FOLDER,
    OutputTree,
    require_writable,
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
    "StorageError",
    "UnusableStorageError",
    "absolute",
    "crc32c_of",
    "files_of",
    "list_names",
    "open_for_reading",
    "read_bytes",
    "require_writable",
    "run_identity",
    "scheme_of",
    "scratch_names",
    "sha256_of",
    "source_files_of",
    "stat_file",
    "use_access",
]
