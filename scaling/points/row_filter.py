"""The expression of `--where`: comparisons of columns joined by and, or, not.

pandas evaluates it once each node of the parsed expression is known to be a column, a constant or a
comparison: no call, attribute or subscript reaches it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

import numpy as np
import pandas as pd

from scaling.errors import ScalingError, unknown_choice

MAX_LENGTH = 5000  # characters: pandas takes 2 ms for each comparison
ALLOWED = (
    *(ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.Compare, ast.cmpop),
    *(ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple),
)
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
    pieces = expression.strip().split("`")
    names = {f"_quoted_{index}": name for index, name in enumerate(pieces[1::2])}
    pieces[1::2] = names
    plain = "".join(pieces)
    try:
        if len(expression) > MAX_LENGTH:
            raise ValueError(f"it is longer than {MAX_LENGTH} characters")
        tree = ast.parse(plain, mode="eval")
        for node in ast.walk(tree):
            if not isinstance(node, ALLOWED):
                raise ValueError(f"{ast.unparse(node)[:60]!r} is not a comparison")
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        values = {}
        for each in used:
            name = names.get(each, each)
            if name not in columns:
                raise unknown_choice("column", name, columns, where="--where")
            values[each] = _comparable(columns[name])
        keep = pd.DataFrame(values).eval(plain, engine="python", local_dict={}, global_dict={})
        if not isinstance(keep, pd.Series) or keep.dtype != bool:
            raise ValueError("it compares no column")
    except (SyntaxError, ValueError, RecursionError, TypeError, NotImplementedError) as error:
        raise ScalingError(
            f"--where {expression[:80]!r}: {str(error).splitlines()[0][:120]}", remedy=FORM
        ) from None
    return keep.to_numpy()


def _comparable(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    is_number = numbers.notna().eq(column.notna() & column.ne("")).all()
    return numbers if is_number else column.astype(str)
