"""Modules as TorchScript. All use of `torch.jit` for writing is here."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from ..separators.base import ModelError

# The second operand of an exception, its class, is newer than torch 1.9.
RAISED_CLASS = re.compile(rb'(ops\.prim\.RaiseException\(.*), "[\w.]+"\)')
# The writer has records of its own of these.
WRITTEN_ANYWAY = ("version", "byteorder", ".data/")


def scripted(module: nn.Module, name: str) -> torch.jit.ScriptModule:
    """A module as TorchScript, with all its branches and checks.

    Parameters
    ----------
    name
        of the module in messages

    Raises
    ------
    ModelError
        TorchScript can't compile it; the message says why, and where
    """
    try:
        with _no_deprecation_told():
            compiled: torch.jit.ScriptModule = torch.jit.script(module.eval())
            return compiled
    # The compiler fails in many ways on what it does not know.
    except Exception as error:
        raise ModelError(f"{name}: TorchScript can't compile it: {_reason(error)}") from error


def save_torchscript(module: torch.jit.ScriptModule, path: Path) -> None:
    """Write a TorchScript module so that torch 1.9 reads it, too, as far as it has its operators.

    Exceptions lose their class, which 1.9 does not know and newer versions don't use. The places of
    operators in the source go: 1.9 ends the process when it comes to tell of one.
    """
    whole = path.with_name(f"{path.name}.whole")
    try:
        with _no_deprecation_told():
            module.save(str(whole))
        _write_for_older_torch(whole, path)
    finally:
        whole.unlink(missing_ok=True)


def _write_for_older_torch(source: Path, path: Path) -> None:
    reader = torch._C.PyTorchFileReader(str(source))
    writer = torch._C.PyTorchFileWriter(str(path))
    writer.set_min_version(file_format(reader))
    for name in reader.get_all_records():
        if name.startswith(WRITTEN_ANYWAY) or name.endswith(".debug_pkl"):
            continue
        content = reader.get_record(name)
        if name.endswith(".py"):
            content = RAISED_CLASS.sub(rb"\1)", content)
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()


def file_format(reader: "torch._C.PyTorchFileReader") -> int:
    """The number of the format of a file; those from 6 on have it in a record of another name."""
    newer = ".data/version"
    return int(reader.get_record(newer if newer in reader.get_all_records() else "version"))


@contextmanager
def _no_deprecation_told() -> Iterator[None]:
    """Torch warns that TorchScript is deprecated: Audacity reads nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit")
        yield


def _reason(error: Exception) -> str:
    """What the compiler says, in a line: the reason, and the line of code that it points at."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    pointed = next((index for index, line in enumerate(lines) if "<--- HERE" in line), 0)
    places = [line for line in lines[:pointed] if line.startswith("File ")]
    code = f" ({places[-1]}: {lines[pointed - 1]})" if places else ""
    return f"{lines[0].rstrip(':') if lines else type(error).__name__}{code}"
