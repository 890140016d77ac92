"""The base of every settings object: immutable, and strict about names and types."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Settings that cannot change after they were made; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def but(self, **changes: Any) -> Self:
        """Return the same settings with some fields changed, validated anew.

        Raises:
            pydantic.ValidationError: for an unknown field or a value outside its range.
        """
        return type(self).model_validate({**dict(self), **changes})


def named(value: Any) -> Any:
    """A bare name as settings of that kind with its defaults: ``"cosine"`` as ``{"kind": "cosine"}``."""
    return {"kind": value} if isinstance(value, str) else value
