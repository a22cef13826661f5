"""What every document has in common: it is checked, it names its format, it is whole or absent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from dav2.files import write_whole


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
"""A number that may not be known: JSON has no NaN, and ``null`` says that there is none."""


class DocumentError(ValueError):
    """A file that is not the document it should be; the message names it, the first wrong key and what to do."""


class Part(BaseModel):
    """Base of everything in a document: unknown keys are refused, so that no reader can ask for what nobody writes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Document(Part):
    """Base of whole files."""

    format: Literal[1] = 1

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_whole(path, self.model_dump_json(indent=1, exclude_none=True) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            FileNotFoundError: it is not there.
            DocumentError: it is damaged, of another kind, or of another format.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(each) for each in first["loc"])
            named = f"{where}: " if where else ""
            raise DocumentError(f"{path} cannot be used ({named}{first['msg']}); delete it and make it again") from None
