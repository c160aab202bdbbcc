"""What every operator of this room gives: one grown text with the account of how it was made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Grown:
    """One new sample; `how` is "operator:params", `category` one of the grown categories where the maker knows it."""

    text: str
    how: str
    operator: str
    category: str | None = None
    subcategory: str | None = None
