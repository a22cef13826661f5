"""Files that installed Python packages ship, found without importing the package."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dav2.data.frame import FrameError
from dav2.data.raw.archives import SourceError
from dav2.data.raw.members import clean_name


class PackagedFile(BaseModel):
    """Where a file lies and what it must be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str = Field(pattern=r"^\w+$")
    file: str
    """Path within the package."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Where it is given, a file that differs is refused."""

    @field_validator("file")
    @classmethod
    def _stays_inside(cls, file: str) -> str:
        return clean_name(file)

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            SourceError: the package is not installed.
            FrameError: the file is not in the package, or is another one than was listed.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise SourceError(f"package '{self.package}' is not installed, but '{self.file}' of it is listed")
        path = Path(next(iter(spec.submodule_search_locations))) / self.file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise FrameError(f"{self.package}: {self.file} cannot be read: {error.strerror}") from error
        if self.sha256 not in (None, hashlib.sha256(data).hexdigest()):
            raise FrameError(f"{self.package}: {self.file} is another file than was listed (sha256 differs)")
        return data
