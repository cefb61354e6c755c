"""ARCHITECTURE.md is the map: what it names must be where it says."""

from __future__ import annotations

import ast
import re

import pytest
from tests.docs.test_readme import ROOT

PAGE = (ROOT / "ARCHITECTURE.md").read_text()
PLACES = sorted(set(re.findall(r"`(accord(?:_\w+)?/[\w/]+\.py)(?::([\w.]+))?", PAGE)))


def test_the_page_names_enough_places_to_be_a_map() -> None:
    assert len(PLACES) > 40


@pytest.mark.parametrize(("path", "name"), PLACES, ids=[":".join(filter(None, place)) for place in PLACES])
def test_a_place_of_the_page_exists(path: str, name: str) -> None:
    source = next(
        (root / path for root in (ROOT / "services", ROOT / "clients/python") if (root / path).is_file()), None
    )
    assert source is not None, f"{path} does not exist"
    body: list[ast.stmt] = ast.parse(source.read_text()).body
    for part in filter(None, name.split(".")):
        found = [node for node in body if getattr(node, "name", None) == part]
        assert found, f"{path} does not define {name}"
        body = getattr(found[0], "body", [])
