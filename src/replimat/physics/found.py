"""What a physical study found: numbers with units, and the curves they come from."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Found:
    """values by name; units by the same names; curves: anything worth drawing or checking, as JSON can hold it."""

    values: dict[str, float]
    units: dict[str, str]
    curves: dict[str, object] = field(default_factory=dict)
