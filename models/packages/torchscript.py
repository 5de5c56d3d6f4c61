"""TorchScript models, as Audacity reads them. All use of `torch.jit` for reading is here.

A TorchScript file is a program. torch's C++ reader unpickles without Python, so none of it runs as
Python; two operators and one hook remain by which it could reach files, and they are refused.
"""

import itertools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..separators.base import ModelError

NAMESPACES = {
    "_quantized", "aten", "mkldnn", "mkldnn_prepacked", "onednn", "prim", "prims", "profiler",
    "quantized", "torchaudio", "torchvision",
}  # fmt: skip
REFUSED = {
    "aten::from_file",
    "aten::save",
    "prim::CallFunction",
    "prim::CallMethod",
    "prim::PythonOp",
}


# What models of labels may have beside `forward`: labels, times, and how sure each is.
CONFIDENCES = "labels_with_confidences"


class TorchScriptModel(torch.nn.Module):
    """A TorchScript model as a module like any other: by itself it lacks half of the methods."""

    def __init__(self, script_module: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.script_module = script_module

    @property
    def gives_confidences(self) -> bool:
        """Whether it has the method `labels_with_confidences`."""
        return bool(self.script_module._c._has_method(CONFIDENCES))

    def labels_with_confidences(self, x: torch.Tensor) -> Any:
        """Run that method; RuntimeError if it fails."""
        return self.script_module.labels_with_confidences(x)

    def forward(self, x: torch.Tensor) -> Any:
        """Run it; RuntimeError if it fails."""
        return self.script_module(x)


def load_torchscript(path: Path, package: str) -> TorchScriptModel:
    """Read a TorchScript model onto the CPU, ready to be called; none of its code runs here.

    Parameters
    ----------
    path
        a file by `torch.jit.save`
    package
        how messages call the package

    Raises
    ------
    ModelError
        it is no TorchScript file, or it asks for more than tensors
    """
    try:
        _refuse_code_that_loading_runs(path, package)
        with warnings.catch_warnings():
            # It warns that TorchScript is deprecated, of a category that follows its version.
            warnings.filterwarnings("ignore", r".*torch\.jit")
            module = torch.jit.load(str(path), map_location="cpu")
            graphs = [module.inlined_graph]
            if module._c._has_method(CONFIDENCES):
                graphs.append(module._c._get_method(CONFIDENCES).inlined_graph)
    except ModelError:
        raise
    except (RuntimeError, ValueError, AttributeError, OSError, torch.jit.Error) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{package}: {path.name} is no TorchScript model that torch {torch.__version__} can "
            f"read ({reason}): export it again"
        ) from error
    for node in itertools.chain.from_iterable(map(nodes_of, graphs)):
        if node.kind() in REFUSED or node.kind().split("::")[0] not in NAMESPACES:
            raise ModelError(
                f"{package}: {path.name} uses {node.kind()}, which a package may not use"
            )
    return TorchScriptModel(module)


def _refuse_code_that_loading_runs(path: Path, package: str) -> None:
    """The only code that runs before the graph can be looked at is in `__setstate__`."""
    reader = torch._C.PyTorchFileReader(str(path))
    code = [
        reader.get_record(name).decode("utf-8", "replace")
        for name in reader.get_all_records()
        if name.endswith(".py")
    ]
    if any("__setstate__" in text for text in code) and any(
        # With a backslash a name could be spelt in another way.
        re.search(r"\\|\b(save|from_file)\b", text)
        for text in code
    ):
        raise ModelError(
            f"{package}: {path.name} has a __setstate__ that may use files, which a package may not"
        )


def nodes_of(block: Any) -> Iterator[Any]:
    """The nodes of a graph of TorchScript, and those of the blocks and graphs in it."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_of(inner)
        if node.hasAttribute("Subgraph"):
            yield from nodes_of(node.g("Subgraph"))
