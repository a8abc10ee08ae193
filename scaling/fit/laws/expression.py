"""Arithmetic as text: parsed, never run as code, and evaluated with derivatives.

Values are arrays over parameter vectors (R, 1) and points (n,).
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any

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
ONE = np.ones((1, 1))  # the slope of a parameter in itself
# by name or operator: the function, and its derivative in each argument from these and its value
OPERATIONS: dict[Any, tuple[Callable[..., Any], ...]] = {
    "log": (np.log, lambda x, y: 1 / x),
    "ln": (np.log, lambda x, y: 1 / x),
    "log10": (np.log10, lambda x, y: 1 / (x * np.log(10))),
    "exp": (np.exp, lambda x, y: y),
    "expm1": (np.expm1, lambda x, y: y + 1),
    "sqrt": (np.sqrt, lambda x, y: 0.5 / y),
    "tanh": (np.tanh, lambda x, y: 1 - y * y),
    "abs": (np.abs, lambda x, y: np.sign(x)),
    "min": (lambda a, b: np.where(a <= b, a, b), lambda a, b, y: a <= b, lambda a, b, y: ~(a <= b)),
    "max": (lambda a, b: np.where(a >= b, a, b), lambda a, b, y: a >= b, lambda a, b, y: ~(a >= b)),
    ast.UAdd: (np.positive, lambda x, y: ONE),
    ast.USub: (np.negative, lambda x, y: -ONE),
    ast.Add: (np.add, lambda a, b, y: ONE, lambda a, b, y: ONE),
    ast.Sub: (np.subtract, lambda a, b, y: ONE, lambda a, b, y: -ONE),
    ast.Mult: (np.multiply, lambda a, b, y: b, lambda a, b, y: a),
    ast.Div: (np.divide, lambda a, b, y: 1 / b, lambda a, b, y: -y * (1 / b)),
    ast.Pow: (
        np.power,
        lambda a, b, y: b * np.power(a, b - 1),
        lambda a, b, y: np.where(y == 0, 0.0, y * np.log(a)),
    ),
}
SUM, PRODUCT = (ast.Add, ast.Sub), (ast.Mult, ast.Div)
FUNCTIONS = {name for name in OPERATIONS if isinstance(name, str)}


def unreadable(text: str, position: int, what: str, where: str = "--formula") -> ScalingError:
    """What is wrong at a position of a text."""
    rest = text[position : position + 24].strip() or "the end"
    return ScalingError(f"position {position + 1}, at {rest!r}: {what}", where=where, remedy=REMEDY)


def parse(text: str, offset: int = 0, where: str = "--formula") -> ast.expr:
    """The expression that stands at `offset` in a text. Raises ScalingError with its place."""
    code = text[offset:].replace("^", "**")
    for word in set(re.findall(r"\w+", code)):
        if keyword.iskeyword(word):  # a name such as lambda is none in Python
            code = re.sub(rf"\b{word}\b", word + RESERVED, code)

    def fault(column: int, what: str) -> ScalingError:
        before = code[: max(0, column)].replace("**", "^").replace(RESERVED, "")
        return unreadable(text, offset + len(before), what, where)

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
    if isinstance(node, ast.Name):
        is_bare = node.id in FUNCTIONS and not is_called
        return f"{node.id} is a function: give its argument in brackets" if is_bare else ""
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS:
            return f"unknown function {ast.unparse(node.func)!r}, or a * is missing before ("
        is_one, count = len(OPERATIONS[name]) == 2, len(node.args)
        if node.keywords or (count != 1 if is_one else count < 2):
            return f"{name} takes {'one argument' if is_one else 'two or more arguments'}"
        while count > 2:  # min(a, b, c) is min(min(a, b), c)
            node.args[:2] = [ast.Call(node.func, node.args[:2], [])]
            count -= 1
        return ""
    if isinstance(node, ast.Constant):
        return "" if type(node.value) in (int, float) else "no arithmetic"
    return "" if type(getattr(node, "op", None)) in OPERATIONS else "no arithmetic"


def names_of(node: ast.AST) -> set[str]:
    """The names in an expression, functions too."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def flatten(node: ast.expr, ops: tuple[type, type], sign: int = 1) -> list[tuple[ast.expr, int]]:
    """The terms of a sum, or the factors of a product, each with its sign or power."""
    if isinstance(node, ast.UnaryOp):
        turned = -sign if isinstance(node.op, ast.USub) and ops[0] is ast.Add else sign
        return flatten(node.operand, ops, turned)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ops):
        second = -sign if isinstance(node.op, ops[1]) else sign
        return [*flatten(node.left, ops, sign), *flatten(node.right, ops, second)]
    return [(node, sign)]


def is_affine(node: ast.expr, names: set[str]) -> bool:
    """Whether an expression is a sum of constants times at most one of the names each."""
    for term, _ in flatten(node, SUM):
        factors = [each for each in flatten(term, PRODUCT) if names & names_of(each[0])]
        if not factors:
            continue
        (factor, power), *more = factors
        is_affine_factor = isinstance(factor, ast.Name) or (
            factor is not term and is_affine(factor, names)
        )
        if more or power < 0 or not is_affine_factor:
            return False
    return True


def evaluate(node: ast.expr, values: Mapping[str, Value]) -> Value:
    """The value of an expression of names, and its derivatives in the parameters it depends on."""
    key: Any
    match node:
        case ast.Constant(number):
            return np.asarray(number, float), {}
        case ast.Name(name):
            return values[name]
        case ast.BinOp(left, operator, right):
            key, arguments = type(operator), [left, right]
        case ast.UnaryOp(sign, operand):
            key, arguments = type(sign), [operand]
        case ast.Call(ast.Name(key), arguments):
            pass
    parts = [evaluate(argument, values) for argument in arguments]
    numbers, (function, *derivatives) = [number for number, _ in parts], OPERATIONS[key]
    value, slopes = function(*numbers), Slopes()
    for (_, inner), derivative in zip(parts, derivatives, strict=True):
        factor = derivative(*numbers, value) if inner else ONE
        for name, slope in inner.items():
            if factor.dtype == bool:  # what is not taken counts for nothing, though it be infinite
                outer = np.where(factor, slope, 0.0)
            else:
                outer = slope if factor is ONE else factor if slope is ONE else factor * slope
            slopes[name] = slopes[name] + outer if name in slopes else outer
    return value, slopes


def value_of(node: ast.expr, values: Mapping[str, Array]) -> Array:
    """The value of an expression alone."""
    return evaluate(node, {name: (value, {}) for name, value in values.items()})[0]


def evaluate_text(text: str, values: Inputs, where: str) -> Array:
    """The value of an expression of known names. Raises ScalingError for any other name."""
    tree = parse(text, where=where)
    if unknown := names_of(tree) - {*values, *FUNCTIONS}:
        raise unknown_choice("column", sorted(unknown)[0], values, where=where)
    with np.errstate(all="ignore"):
        return value_of(tree, values)
