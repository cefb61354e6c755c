"""docs/algorithms: every registered algorithm has a page, and every option stands on it with the default it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from accord import plugins
from accord_trainer.algorithm import AlgorithmOptions
from accord_trainer.algorithms.policy_gradient import PolicyGradientOptions
from accord_trainer.trainings.training import GROUP

DOCS = Path(__file__).resolve().parents[2] / "docs"
INDEX = DOCS / "algorithms.md"
NAMES = plugins.names(GROUP)


def shown(default: object) -> str:
    """A default as the pages write it."""
    if isinstance(default, bool):
        return str(default).lower()
    return {None: "unset", (): "empty"}.get(default, str(default))  # type: ignore[call-overload]


def rows(page: Path) -> dict[str, str]:
    """option -> default of the tables of a page."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", page.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_each_algorithm_has_a_page_that_the_index_links(name: str) -> None:
    assert (DOCS / "algorithms" / f"{name}.md").is_file()
    assert f"[`{name}`](algorithms/{name}.md)" in INDEX.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_option_stands_on_the_page_with_its_default(name: str) -> None:
    options = plugins.load(GROUP, name, field="algorithm").options_type
    common = PolicyGradientOptions if issubclass(options, PolicyGradientOptions) else AlgorithmOptions
    on_index, on_page = rows(INDEX), rows(DOCS / "algorithms" / f"{name}.md")
    for option, field in options.model_fields.items():
        inherited = common.model_fields.get(option)
        place = on_page if inherited is None or inherited.default != field.default else on_index
        assert place.get(option) == shown(field.default), option


def test_pages_name_no_option_that_does_not_exist() -> None:
    known = {
        option for name in NAMES for option in plugins.load(GROUP, name, field="algorithm").options_type.model_fields
    }
    for page in (INDEX, *(DOCS / "algorithms").glob("*.md")):
        tables = re.findall(r"\| option \|.*?\n\n|\| option \|.*\Z", page.read_text(encoding="utf-8"), re.DOTALL)
        for option in re.findall(r"^\| `(\w+)` \|", "\n".join(tables), re.MULTILINE):
            assert option in known, (page.name, option)
