"""The base of everything that is read from YAML or JSON, and what is wrong with it in one line."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class StrictModel(BaseModel):
    """Unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)


class DataModel(BaseModel):
    """What a data file must hold at least: wrong types are errors, other keys are left to others."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


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
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    more = f" (and {others} more)" if others else ""
    return f"{key}: {first['msg'].removeprefix('Value error, ')}{more}"
