"""What a report may say of where things are."""

import pytest

from crywolf.reporting import without_secrets


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("https://user:s3cret@guard.example:8443/score?key=abc#x", "https://guard.example:8443/score"),
        ("HTTP://guard.example/score", "http://guard.example/score"),
        ("guard:score", "guard:score"),
        ("runs/a@b/package", "runs/a@b/package"),
    ],
)
def test_an_address_is_shown_without_what_opens_it(place: str, shown: str) -> None:
    assert without_secrets(place) == shown
