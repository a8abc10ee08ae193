"""The expression of `--where`: comparisons of columns joined by and, or, not. Nothing is evaluated
as code.

A parsed expression is walked node by node; whatever is not a column, a constant or a comparison is
refused.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from scaling.errors import ScalingError, unknown_choice

COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda column, values: pd.Series(column).isin(values),
    ast.NotIn: lambda column, values: ~pd.Series(column).isin(values),
}
FORM = (
    'write comparisons such as: n_params > 1e6 and task == "text" '
    "(back-quotes around a name with spaces)"
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
    pieces = expression.split("`")
    names = {f"_quoted_{index}": name for index, name in enumerate(pieces[1::2])}
    plain = "".join(
        piece if index % 2 == 0 else f"_quoted_{index // 2}" for index, piece in enumerate(pieces)
    )
    try:
        tree = ast.parse(plain.strip(), mode="eval").body
        used = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
        named = {each: names.get(each, each) for each in used}
        for name in set(named.values()) - columns.keys():
            raise unknown_choice("column", name, columns, where="--where")
        values = {each: _comparable(columns[name]) for each, name in named.items()}
        return np.asarray(_truth(tree, values), bool)
    except (
        SyntaxError,
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
        MemoryError,
    ) as error:
        what = str(error).splitlines()[0][:120] if str(error) else "it is nested too deeply"
        raise ScalingError(f"--where {expression[:80]!r}: {what}", remedy=FORM) from None


def _truth(node: ast.expr, columns: Mapping[str, np.ndarray]) -> Any:
    if isinstance(node, ast.BoolOp):
        combined = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return combined.reduce([_truth(part, columns) for part in node.values])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~np.asarray(_truth(node.operand, columns), bool)
    if isinstance(node, ast.Name) and columns[node.id].dtype == bool:
        return columns[node.id]
    if isinstance(node, ast.Compare):
        sides = [_operand(side, columns) for side in (node.left, *node.comparators)]
        if not any(isinstance(side, np.ndarray) for side in sides):
            raise ValueError("a comparison without a column")
        keep = []
        for op, (left, right) in zip(node.ops, pairwise(sides), strict=True):
            is_membership = isinstance(op, (ast.In, ast.NotIn))
            if is_membership and not (isinstance(left, np.ndarray) and isinstance(right, list)):
                raise ValueError("in needs a column on its left and a list on its right")
            left, right = _as_numbers(left, right), _as_numbers(right, left)
            if type(op) not in COMPARISONS:
                raise ValueError("only <, <=, >, >=, ==, !=, in and not in compare")
            keep.append(np.asarray(COMPARISONS[type(op)](left, right), bool))
        return np.logical_and.reduce(keep)
    raise ValueError(f"{ast.unparse(node)[:60]!r} is not a comparison")


def _as_numbers(side: Any, other: Any) -> Any:
    """A column of numbers and words (`n.a.`) that is compared with a number: words are NaN."""
    is_text = isinstance(side, np.ndarray) and side.dtype == object
    if not is_text or isinstance(other, bool) or not isinstance(other, (int, float)):
        return side
    numbers = pd.to_numeric(side, errors="coerce")
    return side if np.isnan(numbers).all() else numbers


def _operand(node: ast.expr, columns: Mapping[str, np.ndarray]) -> Any:
    if isinstance(node, ast.Name):
        return columns[node.id]
    try:
        value = ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"{ast.unparse(node)[:60]!r} is neither a column nor a constant") from None
    if isinstance(value, (complex, bytes, dict)) or value is None or value is ...:
        raise ValueError(f"{ast.unparse(node)[:60]!r} is no constant to compare with")
    return list(value) if isinstance(value, (list, tuple, set)) else value


def _comparable(column: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce")
    is_number = numbers.notna().eq(column.notna() & column.ne("")).fillna(False).all()
    if pd.api.types.is_bool_dtype(column) and not column.hasnans:
        return column.to_numpy(bool)
    if is_number:
        return numbers.to_numpy(dtype=float, na_value=np.nan)
    return column.astype(str).astype(object).to_numpy()
