"""YAML as people expect it: `1e-5` is a number, and a duplicate key is an error."""

from __future__ import annotations

import re
from typing import Any

import yaml

from accord.errors import InvalidArgument


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1 with the floats of YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                line = key.start_mark.line + 1
                raise InvalidArgument(f"line {line}: the key `{key.value}` is given twice", reason="BAD_YAML")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def load(text: str) -> Any:
    """The document in `text`. InvalidArgument, BAD_YAML, names the wrong line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InvalidArgument(f"{line}not YAML: {error.problem or error}", reason="BAD_YAML") from error
    except yaml.YAMLError as error:
        raise InvalidArgument(f"not YAML: {error}", reason="BAD_YAML") from error
