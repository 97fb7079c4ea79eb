"""YAML files as pydantic models: unknown keys, wrong types and impossible values are one-line errors.

Plain values mean what YAML 1.2 and people take them for: 010 is ten, 1e-3 a number, and 1:30, on, 2018-08-07 and
20180807_160028 are texts.
"""

import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import yaml

from datasets.files import read_bytes
from errors import UserError
from strict import StrictModel, checked

MAX_VALUES = 100_000  # of a file, those that aliases repeat counted again

Config = TypeVar("Config", bound=StrictModel)


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the plain values of YAML 1.2's core schema, not those of 1.1."""

    yaml_implicit_resolvers = {}


def _tag(name: str) -> str:
    return f"tag:yaml.org,2002:{name}"


for _name, _expression, _first in [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     list("-+.0123456789")),
]:  # fmt: skip
    _Loader.add_implicit_resolver(_tag(_name), re.compile(f"^(?:{_expression})$"), _first)


def _whole_number(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _number(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


SCALARS: dict[str, Callable[[str], Any]] = {
    _tag("str"): str,
    _tag("null"): lambda _: None,
    _tag("bool"): lambda text: text.lower() == "true",
    _tag("int"): _whole_number,
    _tag("float"): _number,
}


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's keys. UserError: it can't be read or holds none."""
    try:
        content = parse_yaml(read_bytes(path).decode())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no keys")
    return content


def parse_yaml(text: str) -> Any:
    """What a YAML text says. ValueError: it is none, or says what a configuration never needs."""
    try:
        node = yaml.compose(text, _Loader)
        return None if node is None else _value(node, count(1))
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML: {error}") from None
    except RecursionError:
        raise ValueError("nested too deep, or an alias holds itself") from None


def _value(node: yaml.Node, number: Iterator[int]) -> Any:
    if next(number) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values; are there aliases of aliases?")
    if isinstance(node, yaml.MappingNode) and node.tag == _tag("map"):
        content: dict[Any, Any] = {}
        seen = set()
        for key_node, value_node in node.value:
            key = _scalar(key_node)
            if (type(key), key) in seen:
                raise ValueError(f"line {_line(key_node)}: {key} is there twice")
            seen.add((type(key), key))
            content[key] = _value(value_node, number)
        return content
    if isinstance(node, yaml.SequenceNode) and node.tag == _tag("seq"):
        return [_value(item, number) for item in node.value]
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    if not isinstance(node, yaml.ScalarNode) or node.tag not in SCALARS:
        what = "a key that is no plain value" if node.tag in (_tag("map"), _tag("seq")) else f"the tag {node.tag}"
        raise ValueError(f"line {_line(node)}: {what} is not read; write a plain value, in quotes if it is a text")
    try:
        return SCALARS[node.tag](node.value)
    except ValueError:
        shown = node.value if len(node.value) < 40 else f"{node.value[:20]}..."
        raise ValueError(f"line {_line(node)}: {shown} can't be read as a number; put a text in quotes") from None


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def validated(kind: type[Config], content: dict[str, Any], source: str) -> Config:
    """The content as a config; UserError with the source and the first key that is wrong."""
    try:
        return checked(kind, content)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
