"""Models by `torch.export.save`, read without torch's own reader.

Torch does not read such a file without running what stands in it, up to version 2.15, and no flag
turns that off. `torch.export.load`

- unpickles example inputs (`deserialize_torch_artifact` tries `weights_only=True`, and then
  without), and weights and constants (`_load_state_dict`, `_load_constants`);
- has `sympy.sympify`, which evaluates Python, read the sizes of tensors
  (`GraphModuleDeserializer._parse_sym_expr`);
- compiles and runs guards (`_convert_guards_code_to_fn`), and the names of values, which
  `torch.fx` puts into the code of a module.

`ExportedProgramDeserializer` takes tensors that were read elsewhere, and no example inputs, but
evaluates sizes all the same. What runs a file without Python (`torch._C._nativert`) can't be called
from it. tests/models/test_packages.py shows torch do each of these things, and fails where it no
longer does.

Here the file is only data: its graph is rebuilt from numeric operators, its tensors from their
bytes; the rest of it is not looked at.
"""

import math
import operator
import re
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..separators.base import ModelError
from .exported_archive import MALFORMED, ExportedArchive, RefusedError, limits_of
from .shape_limits import ShapeLimits

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}
MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
STRIDED = 7
OPERATOR = re.compile(r"torch\.ops\.aten\.([a-z_]\w*)\.(\w+)")
REFUSED = {"from_file"}
# What is computed of sizes.
PYTHON_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            "add sub mul floordiv truediv mod pow neg pos lshift rshift eq ne lt le gt ge and_ or_"
        ).split()
    },
    **{
        f"torch.{name}": getattr(torch, name)
        for name in "sym_float sym_int sym_ite sym_max sym_min sym_not".split()
    },
    "torch._sym_sqrt": math.sqrt,
    "math.trunc": math.trunc,
}

Json = Mapping[str, Any]


class ExportedModel(torch.nn.Module):
    """An exported model with one tensor as its input.

    Parameters
    ----------
    graph_module
        its graph
    limits
        the shapes that it may be given
    """

    def __init__(self, graph_module: torch.fx.GraphModule, limits: ShapeLimits) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.limits = limits

    def forward(self, x: torch.Tensor) -> Any:
        """Run the graph, as `ExportedProgram.module()` does; ValueError for a shape it can't take.

        Returns
        -------
        a tensor, or a tuple of tensors
        """
        if complaint := self.limits.complaint(x.shape):
            raise ValueError(complaint)
        return self.graph_module(x)


def load_exported(path: Path, package: str) -> ExportedModel:
    """Read an exported model onto the CPU; what it creates later goes where its input is.

    Parameters
    ----------
    path
        a file by `torch.export.save`, torch 2.9 or newer
    package
        how messages call the package

    Raises
    ------
    ModelError
        it is no such file, or it asks for more than arithmetic on tensors
    """
    try:
        with zipfile.ZipFile(path) as file:
            return _read(ExportedArchive(file))
    except RefusedError as error:
        raise ModelError(f"{package}: {path.name} {error}") from error
    except MALFORMED as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"{package}: {path.name} is no model by torch.export.save of torch 2.9 or newer "
            f"({reason[0]}): export it again"
        ) from error


def _read(archive: ExportedArchive) -> ExportedModel:
    program = archive.read_program()
    if archive.read("byteorder").decode().strip() != sys.byteorder:
        raise RefusedError("is of a machine with another byte order")
    limits = limits_of(program)
    tensors = _read_tensors(archive, "weights") | _read_tensors(archive, "constants")
    builder = _GraphBuilder()
    signature = program["graph_module"]["signature"]
    builder.add_inputs(signature["input_specs"], tensors)
    builder.add_nodes(program["graph_module"]["graph"]["nodes"])
    builder.add_outputs(signature["output_specs"])
    return ExportedModel(torch.fx.GraphModule(builder.module, builder.graph), limits)


def _read_tensors(archive: ExportedArchive, kind: str) -> dict[str, torch.Tensor]:
    config = archive.read_json(f"data/{kind}/model_{kind}_config.json")["config"]
    return {name: _read_tensor(archive, kind, name, each) for name, each in config.items()}


def _read_tensor(archive: ExportedArchive, kind: str, name: str, payload: Json) -> torch.Tensor:
    if payload["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
        raise RefusedError(f"holds {name} as a pickled object, which is never loaded")
    meta = payload["tensor_meta"]
    dtype = DTYPES[meta["dtype"]]
    sizes, strides = ([each["as_int"] for each in meta[key]] for key in ("sizes", "strides"))
    content = bytearray(archive.read(f"data/{kind}/{payload['path_name']}"))
    if not content:
        return torch.zeros(sizes, dtype=dtype)
    stored = torch.frombuffer(content, dtype=dtype)
    # Copied, for torch aligns its own memory.
    return torch.as_strided(stored, sizes, strides, meta["storage_offset"]["as_int"]).clone()


class _GraphBuilder:
    """Rebuilds a graph. All names in it are our own: they become code."""

    def __init__(self) -> None:
        self.module = torch.nn.Module()
        self.graph = torch.fx.Graph()
        self._values: dict[str, Any] = {}

    def add_inputs(self, specs: Sequence[Json], tensors: Mapping[str, torch.Tensor]) -> None:
        """Bind the inputs of the graph: the one that the caller passes, and the tensors."""
        given = self.graph.placeholder("x")
        self._device = self.graph.call_function(getattr, (given, "device"))
        for spec in specs:
            ((kind, content),) = spec.items()
            if kind in ("parameter", "buffer", "tensor_constant"):
                tensor = tensors[content[f"{kind}_name"]]
                self._values[content["arg"]["name"]] = self._add_tensor(tensor)
            elif kind == "user_input":
                self._values[content["arg"]["as_tensor"]["name"]] = given
            else:
                raise RefusedError(f"has an input that is a {kind}")

    def _add_tensor(self, tensor: torch.Tensor) -> torch.fx.Node:
        name = f"tensor_{len(self._values)}"
        if tensor.is_floating_point():
            setattr(self.module, name, torch.nn.Parameter(tensor, requires_grad=False))
        else:
            self.module.register_buffer(name, tensor)
        return self.graph.get_attr(name)

    def add_nodes(self, nodes: Sequence[Json]) -> None:
        """Add the operations, each of known names."""
        for node in nodes:
            if node["target"] == "torch.ops.higher_order.wrap_with_set_grad_enabled":
                self._inline(node)
            else:
                self._bind(node["outputs"], self._call(node))

    def _call(self, node: Json) -> torch.fx.Node:
        target = node["target"]
        if target in PYTHON_FUNCTIONS:
            arguments = [self._value(each["arg"]) for each in node["inputs"]]
            return self.graph.call_function(PYTHON_FUNCTIONS[target], tuple(arguments))
        known = OPERATOR.fullmatch(target)
        overload = known and getattr(getattr(torch.ops.aten, known[1], None), known[2], None)
        if not known or not isinstance(overload, torch._ops.OpOverload) or known[1] in REFUSED:
            raise RefusedError(f"uses {target}, which a package may not use")
        given = {each["name"]: self._value(each["arg"]) for each in node["inputs"]}
        positional = []
        for argument in overload._schema.arguments:
            if argument.kwarg_only or argument.name not in given:
                break
            positional.append(given.pop(argument.name))
        return self.graph.call_function(overload, tuple(positional), given)

    def _inline(self, node: Json) -> None:
        """Without gradients, a block under `no_grad` is as good as its operations."""
        _, block, *operands = (each["arg"] for each in node["inputs"])
        inner = block["as_graph"]["graph"]
        outer_values = self._values
        self._values = {
            _name_of(own): self._value(given)
            for own, given in zip(inner["inputs"], operands, strict=True)
        }
        self.add_nodes(inner["nodes"])
        results = [self._value(each) for each in inner["outputs"]]
        self._values = outer_values
        for output, result in zip(node["outputs"], results, strict=True):
            self._values[_name_of(output)] = result

    def _bind(self, outputs: Sequence[Json], result: torch.fx.Node) -> None:
        """Give the results of an operation the names by which later ones call them."""
        if len(outputs) == 1 and "as_tensors" in outputs[0]:
            outputs = [{"as_tensor": each} for each in outputs[0]["as_tensors"]]
        elif len(outputs) == 1:
            if "as_none" not in outputs[0]:
                self._values[_name_of(outputs[0])] = result
            return
        for index, output in enumerate(outputs):
            if "as_none" not in output:
                item = self.graph.call_function(operator.getitem, (result, index))
                self._values[_name_of(output)] = item

    def add_outputs(self, specs: Sequence[Json]) -> None:
        """End the graph; changed inputs are no result, and a changed model is refused."""
        results = []
        for spec in specs:
            ((kind, content),) = spec.items()
            if kind == "user_output":
                results.append(self._value(content["arg"]))
            elif kind != "user_input_mutation":
                raise RefusedError(f"changes itself while it runs ({kind})")
        self.graph.output(results[0] if len(results) == 1 else tuple(results))

    def _value(self, argument: Json) -> Any:
        ((kind, value),) = argument.items()
        match kind:
            case "as_none":
                return None
            case "as_int" | "as_float" | "as_bool" | "as_string":
                return _plain(value)
            case "as_ints" | "as_floats" | "as_bools":
                return [_plain(each) for each in value]
            case "as_tensor":
                return self._values[value["name"]]
            case "as_tensors":
                return [self._values[each["name"]] for each in value]
            case "as_name":
                return self._values[value]
            case "as_sym_int" | "as_sym_float" | "as_sym_bool" | "as_optional_tensor":
                return self._value(value)
            case "as_sym_ints" | "as_sym_floats" | "as_sym_bools" | "as_optional_tensors":
                return [self._value(each) for each in value]
            case "as_complex":
                return complex(value["real"], value["imag"])
            case "as_scalar_type":
                return DTYPES[value]
            case "as_memory_format":
                return MEMORY_FORMATS[value]
            case "as_layout" if value == STRIDED:
                return torch.strided
            case "as_device":
                return self._device
        raise RefusedError(f"has an argument of the unknown kind {kind}")


def _name_of(argument: Json) -> str:
    ((kind, value),) = argument.items()
    if kind == "as_tensor":
        return str(value["name"])
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return str(value["as_name"])
    raise RefusedError(f"has a result of the unknown kind {kind}")


def _plain(value: object) -> object:
    # JSON has no infinity: torch writes it as a string.
    if isinstance(value, str) and value in ("Infinity", "-Infinity", "NaN"):
        return float(value)
    if not isinstance(value, bool | int | float | str):
        raise RefusedError(f"has {type(value).__name__} in place of a number")
    return value
