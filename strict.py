"""The base of everything that is read from YAML or JSON, and what is wrong with it in one line."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class UnknownKey(ValueError):
    """A key that a model does not have; `meant` is what the user may have meant, if anything."""

    def __init__(self, key: object, meant: str, keys: Iterable[str]):
        self.key = key
        hint = f" (did you mean {meant}?)" if meant else ""
        super().__init__(f"there is no such key{hint}; there are {', '.join(keys)}")


class StrictModel(BaseModel):
    """Unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and cls.model_config["extra"] == "forbid":
            keys = [field.alias or name for name, field in cls.model_fields.items()]
            for key in content:
                if key not in keys:
                    raise UnknownKey(key, _meant(cls, key), keys)
        return content


class DataModel(BaseModel):
    """What a data file must hold at least: wrong types are errors, other keys are left to others."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


def _shown(key: object) -> str:
    text = str(key)
    return text if text.isprintable() and 0 < len(text) <= 40 else repr(text[:40])


def _meant(kind: type[BaseModel], key: object) -> str:
    """A key of the model, or of the sections below it, that the user may have meant; none: empty."""
    places = {place.rpartition(".")[2]: place for place in reversed([*_keys(kind)])}  # of several, the first
    close = get_close_matches(str(key)[:40], places, n=1, cutoff=0.75)
    return places[close[0]] if close else ""


def _keys(kind: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in kind.model_fields.items():
        yield f"{above}{field.alias or name}"
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{above}{field.alias or name}.")


Model = TypeVar("Model", bound=BaseModel)


def checked(kind: type[Model], content: Any) -> Model:
    """The content as a model. ValueError: one line with the first key that is wrong."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ValueError(first_error(error)) from None


def first_error(error: ValidationError) -> str:
    """The first key that is wrong, what it should be, and how many others there are."""
    first, others = error.errors()[0], error.error_count() - 1
    place, cause = [*map(str, first["loc"])], first.get("ctx", {}).get("error")
    if isinstance(cause, UnknownKey):
        place.append(_shown(cause.key))
    key = ".".join(place) or "the file"
    more = f" (and {others} more)" if others else ""
    return f"{key}: {first['msg'].removeprefix('Value error, ')}{more}"
