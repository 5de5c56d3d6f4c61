"""What Audacity's torch, version 1.9, can't read of a TorchScript file.

`torch-1.9-operators.txt` has the operators of torch 1.9.0, as that version lists them itself
(`torch._C._jit_get_all_schemas()`): a name with its overload, and how many operands it takes.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..packages.torchscript import nodes_of
from .scripting import file_format

VERSION = "1.9"
OPERATORS_FILE = Path(__file__).with_name("torch-1.9-operators.txt")
# Of the format of the file; torch 1.9 reads 1 to 6.
LATEST_FORMAT = 6


def older_torch_complaints(path: Path) -> list[str]:
    """Why torch 1.9 can't run a TorchScript file; empty if nothing speaks against it.

    Operators are compared by name, overload and number of operands, not by their types.

    Parameters
    ----------
    path
        a file by `save_torchscript`

    Raises
    ------
    RuntimeError
        it is no TorchScript file
    """
    complaints = []
    version = file_format(torch._C.PyTorchFileReader(str(path)))
    if version > LATEST_FORMAT:
        complaints.append(f"format {version} of the file; {VERSION} reads up to {LATEST_FORMAT}")
    known = _operators()
    used: dict[str, int] = {}
    for node in _nodes_of_file(path):
        if node.kind().startswith("aten::"):
            schema = torch._C.parse_schema(node.schema())
            name = schema.name.removeprefix("aten::")
            name += f".{schema.overload_name}" if schema.overload_name else ""
            used[name] = max(used.get(name, 0), _written_operands(node, schema))
    for name, operands in sorted(used.items()):
        if name not in known:
            complaints.append(f"the operator {name}")
        elif operands > known[name]:
            complaints.append(f"the operator {name} with {operands} operands, not {known[name]}")
    return complaints


def _nodes_of_file(path: Path) -> Iterator[Any]:
    """All that the file holds: a reader compiles it, whether it is run or not."""
    # Torch tells wrongly of the types of both.
    functions: Any = torch._C.CompilationUnit()
    read: Any = torch._C.import_ir_module
    read(functions, str(path), torch.device("cpu"), {}, False)
    for function in functions.get_functions():
        yield from nodes_of(function.graph)


@functools.cache
def _operators() -> dict[str, int]:
    lines = OPERATORS_FILE.read_text("utf-8").splitlines()
    return {name: int(operands) for name, operands in map(str.split, lines)}


def _written_operands(node: Any, schema: Any) -> int:
    """How many operands stand in the file: those at the end that are the default do not."""
    # `format` and the like take more of them than they name.
    operands = list(zip(node.inputs(), schema.arguments, strict=False))
    while operands:
        value, argument = operands[-1]
        is_constant = value.node().kind() == "prim::Constant"
        if not (is_constant and argument.has_default_value()):
            break
        if value.toIValue() != argument.default_value:
            break
        operands.pop()
    return len(operands)
