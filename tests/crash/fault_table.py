"""The contract's table of faults: written from what the tests observe, and compared with it ever after."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from pathlib import Path

from asynchooks import checkpoint

CONTRACT = Path(checkpoint.__file__).with_name("README.md")
BEGIN, END = "<!-- faults: written by pytest --write-fault-table -->\n", "<!-- end of faults -->\n"


@dataclass(frozen=True)
class Row:
    """What came of a fault, in words."""

    store: str
    fault: str
    the_run: str
    newest_then: str
    next_start: str
    left_for_sweep: str


class FaultTable:
    """The rows by fault, as they are in the contract."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        for line in self._table().splitlines()[2:]:
            row = Row(*(cell.strip() for cell in line.strip("|").split("|")))
            self.rows[row.fault] = row

    def write(self, faults: list[str]) -> None:
        """Put the rows of these faults into the contract, in their order."""
        names = [field.name.replace("_", " ") for field in fields(Row)]
        rows = [astuple(self.rows[fault]) for fault in faults if fault in self.rows]
        lines = [" | ".join(cells) for cells in (names, ["---"] * len(names), *rows)]
        before, _, rest = CONTRACT.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        CONTRACT.write_text(before + BEGIN + "".join(f"| {line} |\n" for line in lines) + END + after)

    def _table(self) -> str:
        return CONTRACT.read_text().partition(BEGIN)[2].partition(END)[0]
