"""The expression of `--where`: comparisons of columns joined by and, or, not.

pandas evaluates it once each node of the parsed expression is known to be a column, a constant or a
comparison: no call, attribute or subscript reaches it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from types import NoneType

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype

from scaling.errors import ScalingError, unknown_choice

MAX_LENGTH = 5000  # characters: pandas takes 2 ms for each comparison
ALLOWED = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd),
    *(ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.In, ast.NotIn),
    *(ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple),
)
FORM = (
    'write comparisons such as: n_params > 1e6 and task == "text" '
    "(back-quotes around a name with spaces)"
)
FAULTS = (  # of Python's parser, of pandas, and those raised here
    *(SyntaxError, ValueError, TypeError, NotImplementedError),
    *(RecursionError, MemoryError, OverflowError),
)


def select_rows(expression: str, columns: Mapping[str, pd.Series]) -> np.ndarray:
    """The rows that `--where` keeps. Raises ScalingError where it keeps none."""
    keep = select(expression, columns)
    if not keep.any():
        raise ScalingError(
            f"--where {expression[:80]!r} leaves no row", remedy="loosen the condition"
        )
    return keep


def select(expression: str, columns: Mapping[str, pd.Series]) -> np.ndarray:
    """The rows (mask) for which `expression` holds; numbers compare with numbers, text with text.
    Raises ScalingError.
    """
    pieces = expression.strip().split("`")
    names = {f"_quoted_{index}": name for index, name in enumerate(pieces[1::2])}
    pieces[1::2] = names
    plain = "".join(pieces)
    try:
        if len(expression) > MAX_LENGTH:
            raise ValueError(f"it is longer than {MAX_LENGTH} characters")
        tree = ast.parse(plain, mode="eval")
        for node in ast.walk(tree):
            if not _is_allowed(node):
                raise ValueError(f"{(ast.unparse(node) or plain)[:60]!r} is not a comparison")
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        values = {}
        for each in used:
            name = names.get(each, each)
            if name not in columns:
                raise unknown_choice("column", name, columns, where="--where")
            values[each] = _comparable(columns[name])
        for condition in _conditions(tree.body):
            is_column = isinstance(condition, ast.Name) and is_bool_dtype(values[condition.id])
            if not is_column and not isinstance(condition, ast.Compare):
                raise ValueError(f"{ast.unparse(condition)[:60]!r} is not a comparison")
        keep = pd.DataFrame(values).eval(plain, engine="python", local_dict={}, global_dict={})
        if not isinstance(keep, pd.Series) or not is_bool_dtype(keep):
            raise ValueError("it compares no column")
    except FAULTS as error:
        what = str(error).splitlines()[0][:120] if str(error) else "it is nested too deeply"
        raise ScalingError(f"--where {expression[:80]!r}: {what}", remedy=FORM) from None
    return keep.fillna(False).to_numpy(bool)


def _is_allowed(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float, str, NoneType))
    if isinstance(node, ast.Compare):
        pairs = zip(node.ops, node.comparators, strict=True)
        return all(
            isinstance(right, (ast.List, ast.Tuple))
            for op, right in pairs
            if isinstance(op, (ast.In, ast.NotIn))
        )
    return isinstance(node, ALLOWED)


def _conditions(node: ast.expr) -> list[ast.expr]:
    """What `and`, `or` and `not` join."""
    if isinstance(node, ast.BoolOp):
        return [each for value in node.values for each in _conditions(value)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _conditions(node.operand)
    return [node]


def _comparable(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    is_number = numbers.notna().eq(column.notna() & column.ne("")).all()
    return numbers if is_number else column.astype(str)
