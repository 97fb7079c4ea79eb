"""The base of everything that is read from YAML."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)
