"""Arithmetic as text: parsed, never run as code, and evaluated with derivatives.

Derivatives follow by the chain rule, forward: a value comes with its slopes in the parameters that
it depends on, over arrays of parameter vectors (R, 1) and points (n,).
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable, Mapping

import numpy as np

from scaling.errors import ScalingError, unknown_choice
from scaling.fit.laws.derivatives import Array, Inputs

Slopes = dict[str, Array]
Value = tuple[Array, Slopes]
MAX_LENGTH = 5000
RESERVED = "_of_formula"
REMEDY = (
    "write + - * / ^ ( ), numbers, names, log exp sqrt tanh abs min max: "
    '"L = E + A/N^alpha + B/D^beta"'
)
UNARY: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "log": (np.log, lambda x, y: 1 / x),
    "ln": (np.log, lambda x, y: 1 / x),
    "log10": (np.log10, lambda x, y: 1 / (x * np.log(10))),
    "exp": (np.exp, lambda x, y: y),
    "sqrt": (np.sqrt, lambda x, y: 0.5 / y),
    "tanh": (np.tanh, lambda x, y: 1 - y * y),
    "abs": (np.abs, lambda x, y: np.sign(x)),
}
CHOICES: dict[str, Callable[[Array, Array], Array]] = {
    "min": np.less_equal,
    "max": np.greater_equal,
}


def unreadable(text: str, position: int, what: str, where: str = "--formula") -> ScalingError:
    """What is wrong at a position of a text."""
    rest = text[position : position + 24].strip() or "the end"
    return ScalingError(f"position {position + 1}, at {rest!r}: {what}", where=where, remedy=REMEDY)


def parse(text: str, offset: int = 0, where: str = "--formula") -> ast.expr:
    """The expression that stands at `offset` in a text. Raises ScalingError with its place."""
    right = text[offset:]
    code, positions = "", []  # a name such as lambda is none in Python
    for token in re.finditer(r"\w+|\W", right):
        text_of = "**" if token[0] == "^" else token[0] + RESERVED * keyword.iskeyword(token[0])
        code += text_of
        positions += [min(token.start() + i, token.end() - 1) for i in range(len(text_of))]

    def fault(column: int, what: str) -> ScalingError:
        inside = positions[max(0, min(column, len(positions) - 1))] if positions else 0
        place = offset + (inside if column < len(positions) else len(right))
        return unreadable(text, place, what, where)

    if len(text) > MAX_LENGTH:
        raise fault(0, f"longer than {MAX_LENGTH:,} characters")
    lead = len(code) - len(code.lstrip())
    try:
        tree = ast.parse(code.strip(), mode="eval").body
    except SyntaxError as error:
        raise fault(lead + (error.offset or 1) - 1, "no arithmetic") from None
    except (ValueError, RecursionError, MemoryError):
        raise fault(0, "nested too deeply") from None
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = node.id.removesuffix(RESERVED)
        if isinstance(node, ast.expr):
            column = lead + node.col_offset
            if what := _fault(node, id(node) in called):
                raise fault(column, what)
    return tree


def _fault(node: ast.expr, is_called: bool) -> str:
    """What makes a node no part of a formula; empty where nothing does."""
    if isinstance(node, ast.BinOp):
        allowed = isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow))
    elif isinstance(node, ast.UnaryOp):
        allowed = isinstance(node.op, (ast.USub, ast.UAdd))
    elif isinstance(node, ast.Constant):
        allowed = type(node.value) in (int, float)
    elif isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in UNARY and name not in CHOICES:
            return f"unknown function {ast.unparse(node.func)!r}, or a * is missing before ("
        count = len(node.args)
        allowed = not node.keywords and (count == 1 if name in UNARY else count > 1)
        if not allowed:
            return f"{name} takes {'one argument' if name in UNARY else 'two or more arguments'}"
    elif isinstance(node, ast.Name):
        if not is_called and (node.id in UNARY or node.id in CHOICES):
            return f"{node.id} is a function: give its argument in brackets"
        return ""
    else:
        allowed = False
    return "" if allowed else "no arithmetic"


def names_of(node: ast.AST) -> set[str]:
    """The names in an expression, functions too."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def is_affine(node: ast.expr, names: set[str]) -> bool:
    """Whether an expression is a sum of constants times at most one of the names each."""
    if not names & names_of(node):
        return True
    if isinstance(node, ast.UnaryOp):
        return is_affine(node.operand, names)
    if isinstance(node, ast.BinOp):
        left, right = (names & names_of(side) for side in (node.left, node.right))
        if isinstance(node.op, (ast.Add, ast.Sub)):
            return is_affine(node.left, names) and is_affine(node.right, names)
        if isinstance(node.op, ast.Mult):
            return not (left and right) and is_affine(node.left if left else node.right, names)
        if isinstance(node.op, ast.Div):
            return not right and is_affine(node.left, names)
    return isinstance(node, ast.Name)


def evaluate(node: ast.expr, values: Mapping[str, Value]) -> Value:
    """The value of an expression of names, and its derivative in each parameter it depends on."""
    if isinstance(node, ast.Constant):
        return np.asarray(float(node.value)), {}  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.UnaryOp):
        value, slopes = evaluate(node.operand, values)
        if isinstance(node.op, ast.UAdd):
            return value, slopes
        return -value, {name: -slope for name, slope in slopes.items()}
    if isinstance(node, ast.BinOp):
        return _binary(node.op, evaluate(node.left, values), evaluate(node.right, values))
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    parts = [evaluate(argument, values) for argument in node.args]
    value, slopes = parts[0]
    if node.func.id in UNARY:
        function, derivative = UNARY[node.func.id]
        result = function(value)
        if not slopes:
            return result, {}
        factor = derivative(value, result)
        return result, {name: factor * slope for name, slope in slopes.items()}
    for other, other_slopes in parts[1:]:
        first = CHOICES[node.func.id](value, other)
        value = np.where(first, value, other)
        slopes = {
            name: np.where(first, slopes.get(name, 0.0), other_slopes.get(name, 0.0))
            for name in {*slopes, *other_slopes}
        }
    return value, slopes


def _binary(
    op: ast.operator, left: tuple[Array, Slopes], right: tuple[Array, Slopes]
) -> tuple[Array, Slopes]:
    (a, slopes_a), (b, slopes_b) = left, right
    by_a: Array | float
    by_b: Array | float
    if isinstance(op, ast.Add):
        value, by_a, by_b = a + b, 1.0, 1.0
    elif isinstance(op, ast.Sub):
        value, by_a, by_b = a - b, 1.0, -1.0
    elif isinstance(op, ast.Mult):
        value, by_a, by_b = a * b, b, a
    elif isinstance(op, ast.Div):
        value, by_a = a / b, 1 / b
        by_b = -value * by_a if slopes_b else 0.0
    else:
        value = np.power(a, b)
        by_a = b * np.power(a, b - 1) if slopes_a else 0.0
        by_b = np.where(value == 0, 0.0, value * np.log(a)) if slopes_b else 0.0
    slopes = {name: by_a * slope for name, slope in slopes_a.items()}
    for name, slope in slopes_b.items():
        slopes[name] = slopes[name] + by_b * slope if name in slopes else by_b * slope
    return value, slopes


def value_of(node: ast.expr, values: Mapping[str, Array]) -> Array:
    """The value of an expression alone."""
    return evaluate(node, {name: (value, {}) for name, value in values.items()})[0]


def evaluate_text(text: str, values: Inputs, where: str) -> Array:
    """The value of an expression of known names. Raises ScalingError for any other name."""
    tree = parse(text, where=where)
    if unknown := names_of(tree) - {*values, *UNARY, *CHOICES}:
        raise unknown_choice("column", sorted(unknown)[0], values, where=where)
    with np.errstate(all="ignore"):
        return value_of(tree, values)
