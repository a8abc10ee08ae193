"""The expression of `--where`: comparisons of columns joined by and, or, not. Nothing is evaluated
as code.

A parsed expression is walked node by node; whatever is not a column, a constant or a comparison is
refused.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
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
    ast.In: lambda column, values: column.isin(values),
    ast.NotIn: lambda column, values: ~column.isin(values),
}
FORM = (
    'write comparisons such as: n_params > 1e6 and task == "text" '
    "(back-quotes around a name with spaces)"
)


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
        values = _Columns(columns)
        return np.asarray(_truth(tree, values, names), bool)
    except (SyntaxError, ValueError, RecursionError, MemoryError, TypeError) as error:
        raise ScalingError(
            f"--where {expression[:80]!r}: {str(error).splitlines()[0][:120]}", remedy=FORM
        ) from None


def _truth(node: ast.expr, columns: Mapping[str, pd.Series], names: Mapping[str, str]) -> Any:
    if isinstance(node, ast.BoolOp):
        parts = [_truth(part, columns, names) for part in node.values]
        return (
            np.logical_and.reduce(parts)
            if isinstance(node.op, ast.And)
            else np.logical_or.reduce(parts)
        )
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~np.asarray(_truth(node.operand, columns, names), bool)
    if isinstance(node, ast.Compare):
        sides = [_operand(side, columns, names) for side in (node.left, *node.comparators)]
        if not any(isinstance(side, pd.Series) for side in sides):
            raise ValueError("a comparison without a column")
        return np.logical_and.reduce(
            [_compare(op, *pair) for op, pair in zip(node.ops, pairwise(sides), strict=True)]
        )
    raise ValueError(f"{ast.unparse(node)[:60]!r} is no comparison")


def _compare(op: ast.cmpop, left: Any, right: Any) -> np.ndarray:
    if isinstance(op, (ast.In, ast.NotIn)) and not (
        isinstance(left, pd.Series) and isinstance(right, list)
    ):
        raise ValueError("in needs a column on its left and a list on its right")
    if type(op) not in COMPARISONS:
        raise ValueError("only <, <=, >, >=, ==, !=, in and not in compare")
    if not isinstance(right, list):
        left, right = (s.to_numpy() if isinstance(s, pd.Series) else s for s in (left, right))
    return np.asarray(COMPARISONS[type(op)](left, right), bool)


def _operand(node: ast.expr, columns: Mapping[str, pd.Series], names: Mapping[str, str]) -> Any:
    if isinstance(node, ast.Name):
        name = names.get(node.id, node.id)
        if name not in columns:
            raise unknown_choice("column", name, columns, where="--where")
        return columns[name]
    try:
        value = ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"{ast.unparse(node)[:60]!r} is neither a column nor a constant") from None
    return list(value) if isinstance(value, (list, tuple, set)) else value


class _Columns(Mapping[str, pd.Series]):
    """Columns for comparisons: cells as numbers where all of them are, else as text."""

    def __init__(self, columns: Mapping[str, pd.Series]) -> None:
        self.columns = columns
        self._converted: dict[str, pd.Series] = {}

    def __getitem__(self, name: str) -> pd.Series:
        if name not in self._converted:
            column = self.columns[name]
            numbers = pd.to_numeric(column, errors="coerce")
            is_number = numbers.notna().eq(column.notna() & column.ne("")).all()
            self._converted[name] = numbers if is_number else column.astype(str).astype(object)
        return self._converted[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)
