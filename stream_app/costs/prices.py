"""The price table: prices by region and name, with their date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from stream_app.errors import ConfigError, Problem

SHIPPED = Path(__file__).with_name("prices.json")
_REGION = "us-east-1"


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`dollars` per `per` units; `verified` if it was compared with the public price page on the date."""

    dollars: float
    per: float
    unit: str
    source: str
    verified: bool = False

    def of(self, quantity: float) -> float:
        """Return the cost of a quantity in dollars."""
        return quantity / self.per * self.dollars


class _Table(msgspec.Struct, frozen=True):
    date: str
    regions: dict[str, dict[str, Price]]
    notes: list[str] = []


class Prices(msgspec.Struct, frozen=True):
    """The prices of one region by name (`<service>.<item>`)."""

    date: str
    region: str
    by_name: Mapping[str, Price]

    def __getitem__(self, name: str) -> Price:
        return self.by_name[name]


def load(path: Path | None = None, region: str = _REGION) -> Prices:
    """Load the prices of a region from the bundled table or from a file of the same format.

    For the default region, a file may omit prices that it does not change. Raises ConfigError if the file is invalid
    or does not contain the region.
    """
    table = _read(SHIPPED)
    own = _read(path) if path else table
    if region not in own.regions:
        hint = f"give one of {', '.join(sorted(own.regions))}, or a table with other regions as --prices FILE"
        raise ConfigError([Problem(f"the price table has no region {region}", hint)])
    prices = {**table.regions[_REGION], **own.regions[region]} if region == _REGION else own.regions[region]
    problems = [
        Problem(f"{path}: no price {name} for {region}", "add an entry in the format of the bundled table")
        for name in sorted(table.regions[_REGION].keys() - prices.keys())
    ]
    problems += [
        Problem(
            f"{path}: {name} costs {price.dollars} for {price.per}", "give numbers of at least 0, per above 0"
        )
        for name, price in prices.items()
        if not (price.dollars >= 0 and price.per > 0)
    ]
    if problems:
        raise ConfigError(problems)
    return Prices(own.date, region, prices)


def _read(path: Path) -> _Table:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Table)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "give a JSON file in the format of stream_app/costs/prices.json"
        raise ConfigError([Problem(f"cannot read price table {path}: {error}", hint)]) from error
