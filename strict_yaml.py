"""YAML files as pydantic models: unknown keys, wrong types and impossible values are one-line errors."""

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from errors import UserError
from strict import StrictModel

EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


Config = TypeVar("Config", bound=StrictModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's keys. UserError: it can't be read or holds none."""
    try:
        text = path.read_text()
        check_keys_once(yaml.compose(text, yaml.SafeLoader), path)
        content = with_exponents(yaml.safe_load(text))
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no keys")
    return content


def check_keys_once(node: yaml.Node | None, path: Path) -> None:
    """UserError: a section has a key twice, of which YAML would silently take the second."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise UserError(f"{path}, line {key.start_mark.line + 1}: {key.value} is there twice")
            seen.add((key.tag, key.value))
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                check_keys_once(part, path)


def with_exponents(content: Any) -> Any:
    """YAML 1.1 takes 1e-3 for a text, since it has no point: make it the number that everybody means."""
    if isinstance(content, dict):
        return {key: with_exponents(value) for key, value in content.items()}
    if isinstance(content, list):
        return [with_exponents(value) for value in content]
    return float(content) if isinstance(content, str) and EXPONENT.fullmatch(content) else content


def validated(kind: type[Config], content: dict[str, Any], source: str) -> Config:
    """The content as a config; UserError with the source and the first key that is wrong."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first, others = error.errors()[0], error.error_count() - 1
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        more = f" (and {others} more)" if others else ""
        raise UserError(f"{source}: {key}: {message}{more}") from None
