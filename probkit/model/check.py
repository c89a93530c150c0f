"""A check and a report of checks: value, limit, verdict, remedy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Literal

Side = Literal["at most", "at least"]


@dataclass(frozen=True)
class Check:
    """One number, the limit it should keep, and what to do if it does not.

    Attributes:
        name: what is checked, in words.
        value: what was found. NaN fails.
        side: whether the limit is an upper or a lower one.
        limit: the limit.
        remedy: what to do if the limit is not kept.
        note: more about the value: its unit, where it was found, or why it matters.
    """

    name: str
    value: float | int
    side: Side
    limit: float | int
    remedy: str
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the limit is kept."""
        if math.isnan(self.value):
            return False
        if self.side == "at most":
            return self.value <= self.limit
        return self.value >= self.limit

    @property
    def verdict(self) -> str:
        """`ok`, or `LOOK` if the limit is not kept."""
        return "ok" if self.ok else "LOOK"


HEADER = ("check", "value", "limit", "verdict", "what to do")


@dataclass(frozen=True)
class Report:
    """The checks of one fit. It prints as a table, also in a notebook.

    Iterate over the checks, or take one by its name, `report["divergences"]`.

    Attributes:
        title: the heading of the table.
        checks: the checks, in the order of the table.
    """

    title: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check keeps its limit."""
        return all(check.ok for check in self.checks)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        names = ", ".join(f"`{check.name}`" for check in self.checks)
        raise KeyError(f"no check is called `{name}`; there are {names}")

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """The table: one tuple of texts per check, in the order of `HEADER`."""
        return [
            (
                check.name,
                f"{check.value:.4g}",
                f"{check.side} {check.limit:.4g}",
                check.verdict,
                "; ".join(filter(None, (check.note, "" if check.ok else check.remedy))),
            )
            for check in self.checks
        ]

    def _closing(self) -> str:
        failed = sum(not check.ok for check in self.checks)
        if failed == 0:
            return f"All {len(self.checks)} checks keep their limits."
        return f"{failed} of {len(self.checks)} checks need a look."

    def __str__(self) -> str:
        table = [HEADER, *self.rows()]
        widths = [max(len(row[i]) for row in table) for i in range(4)]
        lines = [
            "  ".join(
                [*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]
            )
            for row in table
        ]
        return "\n".join([self.title, *(line.rstrip() for line in lines), self._closing()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(cells, tag):
            return "<tr>" + "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self.rows())
        return (
            f"<table><caption>{escape(self.title)}</caption>"
            f"<thead>{row(HEADER, 'th')}</thead><tbody>{body}</tbody></table>"
            f"<p>{escape(self._closing())}</p>"
        )
