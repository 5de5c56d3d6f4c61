"""The shapes that an exported model may be given: conditions in its file, read but never run."""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Max": max,
    "Min": min,
    "max": max,
    "min": min,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "Eq": operator.eq,
    "Ne": operator.ne,
}
SIZE = re.compile(r"L\['\w+'\]\.size\(\)\[([0-9])\]")
LONGEST = 2000


class ShapeLimits:
    """Which shapes an exported model was checked for.

    Parameters
    ----------
    sizes
        of its input, as in the file: fixed numbers and symbols
    ranges
        of the symbols, as in the file
    guards
        further conditions, as in the file

    Raises
    ------
    ValueError
        a guard holds more than sums, products and comparisons of sizes
    """

    def __init__(
        self,
        sizes: Sequence[Mapping[str, Any]],
        ranges: Mapping[str, Mapping[str, int | None]],
        guards: Sequence[str],
    ) -> None:
        self._bounds = [_bounds(size, ranges) for size in sizes]
        self._guards = [(guard, _parse(guard)) for guard in guards]
        for _, tree in self._guards:
            _value(tree, (10**6,) * 10)

    @property
    def fixed(self) -> tuple[int | None, ...]:
        """The size of each axis, None where it may vary."""
        return tuple(low if low == high else None for low, high in self._bounds)

    def complaint(self, shape: Sequence[int]) -> str | None:
        """Why the model can't be given this shape; None if it can."""
        if len(shape) != len(self._bounds):
            return f"it takes {len(self._bounds)} axes, not {len(shape)}"
        for axis, (size, (low, high)) in enumerate(zip(shape, self._bounds, strict=True)):
            if size < low or (high is not None and size > high):
                limits = str(low) if low == high else f"{low} to {high or 'any number'}"
                return f"it was exported for {limits} on axis {axis}, not {size}"
        for guard, tree in self._guards:
            if not _value(tree, tuple(shape)):
                return f"it was exported for inputs with {guard}"
        return None


def _bounds(
    size: Mapping[str, Any], ranges: Mapping[str, Mapping[str, int | None]]
) -> tuple[int, int | None]:
    if "as_int" in size:
        return int(size["as_int"]), int(size["as_int"])
    # A symbol is spelt `s27` or `Symbol('s27', …)`; of a compound one nothing is known here.
    symbol = re.match(r"(?:Symbol\(')?(\w+)(?:'[^+*/-]*\))?$", size["as_expr"]["expr_str"])
    known = ranges.get(symbol[1], {}) if symbol else {}
    return known.get("min_val") or 0, known.get("max_val")


def _parse(guard: str) -> ast.expr:
    if len(guard) > LONGEST:
        raise ValueError("a guard is too long")
    return ast.parse(SIZE.sub(r"size[\1]", guard).strip(), mode="eval").body


def _value(node: ast.expr, shape: tuple[int, ...]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.Subscript(value=ast.Name(id="size"), slice=ast.Constant(value=int(axis))):
            return shape[axis]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            return BINARY[type(op)](_value(left, shape), _value(right, shape))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, shape)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, shape)
        case ast.BoolOp(op=op, values=values):
            every = [bool(_value(value, shape)) for value in values]
            return all(every) if isinstance(op, ast.And) else any(every)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            sides = [_value(side, shape) for side in (left, *comparators)]
            return all(
                COMPARISONS[type(op)](before, after)
                for op, before, after in zip(ops, sides, sides[1:], strict=False)
            )
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*(_value(argument, shape) for argument in arguments))
    raise ValueError(f"the condition {ast.unparse(node)} can't be read")
