"""Laws that a person writes: "L(N, D) = E + (A/N^alpha + B/D^beta)^k" becomes a `Law`.

The text is parsed as arithmetic and never run as code. Values and derivatives follow by the chain
rule, forward, over arrays of parameter vectors (R, 1) and points (n,).
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from scaling.errors import ScalingError, unknown_choice
from scaling.fit.frontier.frontier import Cost, Frontier
from scaling.fit.laws.derivatives import Array, Bound, Inputs, by_differences
from scaling.fit.laws.law import Law, Param

Slopes = dict[str, Array]
LETTERS = ("N", "D", "C", "U")  # inputs of a formula that does not name its own
MAX_LENGTH = 5000
RESERVED = "_of_formula"
FAR = 300.0  # a log loss in the place of one that is not finite: no step goes there
HEAD = re.compile(r"\s*\w+\s*(?:\(([\w\s,]*)\))?\s*")
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


@dataclass(frozen=True)
class FormulaLaw(Law):
    """A law from its text. Theta are the reported parameters themselves.

    `tree` is the right side, `linear` the parameters in which it is jointly affine, `start` values
    from which a fit begins too.
    """

    tree: ast.expr = field(default_factory=lambda: ast.Constant(0.0), repr=False)
    linear: tuple[str, ...] = ()
    start: Mapping[str, float] | None = None

    def logs(self, x: Inputs) -> Inputs:
        """The inputs as they are: a formula takes its own logs."""
        return {name: np.asarray(x[name], float) for name in self.inputs}

    def evaluate(self, theta: Array, x: Inputs) -> tuple[Array, Slopes]:
        """The loss (R, n) at theta (R, P), and its derivative in each parameter it depends on."""
        columns = {name: theta[:, i, None] for i, name in enumerate(self.names)}
        with np.errstate(all="ignore"):
            value, slopes = _evaluate(self.tree, {**x, **columns}, self.names)
        shape = (len(theta), len(next(iter(x.values()))))
        return np.broadcast_to(value, shape), slopes

    def gradient(self, theta: Array, x: Inputs) -> tuple[Array, Array]:
        """The loss (R, n) and its derivatives (R, P, n)."""
        value, slopes = self.evaluate(theta, x)
        gradient = np.zeros((len(theta), len(self.params), value.shape[1]))
        for name, slope in slopes.items():
            gradient[:, self.index(name)] = slope
        return value, gradient

    def predict(self, theta: Array, x: Inputs) -> Array:
        """The predicted loss (..., n), of either sign."""
        theta = np.asarray(theta, float)
        value, _ = self.evaluate(theta.reshape(-1, len(self.params)), self.logs(x))
        return value.reshape(*theta.shape[:-1], -1)

    def bind(self, logs: Inputs) -> Bound:
        """Log L, or L where `signed`, at fixed inputs, as a function of theta (R, P)."""

        def value_and_gradient(theta: Array) -> tuple[Array, Array]:
            value, gradient = self.gradient(theta, logs)
            if not self.signed:
                with np.errstate(all="ignore"):
                    value, gradient = np.log(value), gradient / value[:, None]
            usable = np.isfinite(value) & np.isfinite(gradient).all(1)
            return np.where(usable, value, FAR), np.where(usable[:, None], gradient, 0.0)

        return by_differences(value_and_gradient)


def parse_formula(
    text: str,
    inputs: Collection[str] = (),
    bounds: Mapping[str, Sequence[float]] | None = None,
    start: Mapping[str, float] | None = None,
    source: str = "",
    only_text: bool = False,
) -> FormulaLaw:
    """The law of a formula. Its inputs stand in brackets on its left side; else they are the names
    that `inputs` holds, with N, D, C and U. `only_text` checks a formula before its table is read.

    Raises ScalingError that gives the position of what cannot be read.
    """
    left, equals, right = text.partition("=")
    head = HEAD.fullmatch(left)
    if not equals or not head:
        raise _unreadable(text, 0, "the left side is no name")
    tree = _parse(right, len(left) + 1, text)
    occurring = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    names = list(
        dict.fromkeys(node.id for node in sorted(occurring, key=lambda node: node.col_offset))
    )
    names = [name for name in names if name not in UNARY and name not in CHOICES]
    given = [name.strip() for name in (head[1] or "").split(",") if name.strip()]
    if unused := [name for name in given if name not in names]:
        raise _unreadable(text, left.find(unused[0]), f"{unused[0]} does not occur in the formula")
    used = given or [name for name in names if name in {*inputs, *LETTERS}]
    params = [name for name in names if name not in used]
    if (not used or not params) and not only_text:
        raise ScalingError(
            f"{text.strip()[:120]!r} has no {'parameter' if used else 'input'}",
            where="--formula",
            remedy='name the inputs on its left side, as in "L(experts, N) = ..."',
        )
    for option in (bounds or {}, start or {}):
        if unknown := [name for name in option if name not in params]:
            raise ScalingError(
                f"the formula has no parameter {unknown[0]!r}",
                where="--formula",
                remedy=f"its parameters are {', '.join(params)}",
            )
    limits = {name: _limits(name, pair) for name, pair in (bounds or {}).items()}
    formula = f"L({', '.join(used)}) = {' '.join(right.split())}"
    law = FormulaLaw(
        name=formula,
        formula=formula,
        reference=source or "a formula of the user",
        inputs=tuple(used),
        params=tuple(Param(name, limits.get(name, (-np.inf, np.inf))) for name in params),
        terms=(),
        tree=tree,
        start=start,
    )
    linear: list[str] = []
    for name in params:
        if _is_affine(tree, {*linear, name}):
            linear.append(name)
    law = replace(law, linear=tuple(linear))
    if set(used) == {"N", "D"}:
        law = replace(law, closed_frontier=lambda values, cost: _frontier(law, values, cost))
    return law


def _frontier(law: FormulaLaw, values: Inputs, cost: Cost) -> Frontier:
    """N*, D* and L* by minimisation, for reported parameters that are scalars or draws (R,)."""
    from scaling.fit.frontier.numeric import NumericFrontier

    theta = np.atleast_2d(law.theta(values))
    columns = {name: theta[:, i, None] for i, name in enumerate(law.names)}

    def loss_at(n: Array, d: Array) -> Array:
        return _evaluate(law.tree, {"N": n, "D": d, **columns}, ())[0]

    return NumericFrontier.of(loss_at, cost, np.ndim(next(iter(values.values()))) == 0)


def evaluate_text(text: str, values: Inputs, where: str) -> Array:
    """The value of an expression of known names. Raises ScalingError for any other name."""
    tree = _parse(text, 0, text, where)
    if unknown := names_of(tree) - {*values, *UNARY, *CHOICES}:
        raise unknown_choice("column", sorted(unknown)[0], values, where=where)
    with np.errstate(all="ignore"):
        return _evaluate(tree, values, ())[0]


def _limits(name: str, pair: Sequence[float]) -> tuple[float, float]:
    try:
        low, high = map(float, pair)
    except (TypeError, ValueError):
        low = high = np.nan
    if not low < high:
        raise ScalingError(
            f"bounds of {name}: {pair!r} are no pair of rising numbers",
            where="--formula",
            remedy=f"write {name} = [0, 2]; inf and -inf leave a side open",
        )
    return low, high


def _unreadable(text: str, position: int, what: str, where: str = "--formula") -> ScalingError:
    rest = text[position : position + 24].strip() or "the end"
    return ScalingError(f"position {position + 1}, at {rest!r}: {what}", where=where, remedy=REMEDY)


def _parse(right: str, offset: int, text: str, where: str = "--formula") -> ast.expr:
    """The expression of the right side, which stands at `offset` in the text."""
    code, positions = "", []  # a name such as lambda is none in Python
    for token in re.finditer(r"\w+|\W", right):
        text_of = "**" if token[0] == "^" else token[0] + RESERVED * keyword.iskeyword(token[0])
        code += text_of
        positions += [min(token.start() + i, token.end() - 1) for i in range(len(text_of))]

    def fault(column: int, what: str) -> ScalingError:
        inside = positions[max(0, min(column, len(positions) - 1))] if positions else 0
        place = offset + (inside if column < len(positions) else len(right))
        return _unreadable(text, place, what, where)

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


def _is_affine(node: ast.expr, names: set[str]) -> bool:
    """Whether an expression is a sum of constants times at most one of the names each."""
    if not names & names_of(node):
        return True
    if isinstance(node, ast.UnaryOp):
        return _is_affine(node.operand, names)
    if isinstance(node, ast.BinOp):
        left, right = (names & names_of(side) for side in (node.left, node.right))
        if isinstance(node.op, (ast.Add, ast.Sub)):
            return _is_affine(node.left, names) and _is_affine(node.right, names)
        if isinstance(node.op, ast.Mult):
            return not (left and right) and _is_affine(node.left if left else node.right, names)
        if isinstance(node.op, ast.Div):
            return not right and _is_affine(node.left, names)
    return isinstance(node, ast.Name)


def _evaluate(
    node: ast.expr, values: Mapping[str, Array], params: Sequence[str]
) -> tuple[Array, Slopes]:
    """The value of an expression, and its derivative in each parameter that occurs in it."""
    if isinstance(node, ast.Constant):
        return np.asarray(float(node.value)), {}  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return values[node.id], {node.id: np.ones((1, 1))} if node.id in params else {}
    if isinstance(node, ast.UnaryOp):
        value, slopes = _evaluate(node.operand, values, params)
        if isinstance(node.op, ast.UAdd):
            return value, slopes
        return -value, {name: -slope for name, slope in slopes.items()}
    if isinstance(node, ast.BinOp):
        return _binary(
            node.op,
            _evaluate(node.left, values, params),
            _evaluate(node.right, values, params),
        )
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    parts = [_evaluate(argument, values, params) for argument in node.args]
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
