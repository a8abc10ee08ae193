"""The rows of a table on their way to points: which are left, and what was said on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scaling.warning import ResultWarning, WarningCode, warn


@dataclass
class TableRows:
    """The rows that are left of a table, the columns used by letter, and their numbers in plain
    units once they are read; what was left out with its reason, warnings, and notes.
    """

    table: pd.DataFrame
    used: Mapping[str, str]
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    excluded: list[tuple[str, int]] = field(default_factory=list)
    warnings: list[ResultWarning] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def free(self) -> list[str]:
        """The columns that are not used."""
        return [name for name in map(str, self.table.columns) if name not in self.used.values()]

    def keep(self, keep: np.ndarray | pd.Series, reason: str) -> None:
        """Keep some rows: a mask of those that are left, or of more, with their index."""
        if isinstance(keep, pd.Series):
            keep = keep.loc[self.table.index].to_numpy(bool)
        if not keep.all():
            self.excluded.append((reason, int((~keep).sum())))
            self.table = self.table[keep]
            self.numbers = {letter: values[keep] for letter, values in self.numbers.items()}

    def warn(self, code: WarningCode, message: str, **data: Any) -> None:
        """Add a warning."""
        self.warnings.append(warn(code, message, **data))
