"""``infra/compose.yaml`` as this package needs it where there are no containers: the same commands, as processes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.team.settings import TeamError

FILE = Path("infra/compose.yaml")
STARTED = "service_started"


class Service(BaseModel):
    """What of a service concerns a process; what concerns its container alone is left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    command: list[str]
    environment: dict[str, str] = Field(default_factory=dict)
    restart: str = "no"
    volumes: list[str] = Field(default_factory=list)
    depends_on: dict[str, dict[str, str]] = Field(default_factory=dict)
    healthcheck: dict[str, Any] = Field(default_factory=dict)

    @property
    def check(self) -> list[str]:
        """Command that says by its exit status whether the service is well; empty where it has none."""
        return list(self.healthcheck.get("test", [])[1:])

    @property
    def keeps(self) -> str:
        """Name of the volume that the service keeps its data in; empty where it keeps none."""
        return next((name for name, _, place in (v.partition(":") for v in self.volumes) if place == "/data"), "")


def services(path: Path, environment: Mapping[str, str]) -> dict[str, Service]:
    """The services of a compose file, those that others need first.

    Args:
        path: the file.
        environment: takes the place of ``${NAME}`` and ``${NAME:-default}``.

    Raises:
        TeamError: the file cannot be read, or its services wait for each other.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        # One with a profile is started only when it is asked for by name.
        own = {name: each for name, each in tree["services"].items() if "profiles" not in each}
        found = {name: Service.model_validate(_filled(each, environment)) for name, each in own.items()}
    except OSError as error:
        raise TeamError(f"{path} cannot be read ({error.strerror}); run this in the folder of the project") from None
    except (yaml.YAMLError, ValidationError, KeyError, TypeError) as error:
        raise TeamError(f"{path}: {error}") from None
    ordered: dict[str, Service] = {}
    while len(ordered) < len(found):
        ready = [name for name, each in found.items() if name not in ordered and set(each.depends_on) <= set(ordered)]
        if not ready:
            raise TeamError(f"{path}: {', '.join(sorted(set(found) - set(ordered)))} wait for each other")
        ordered.update((name, found[name]) for name in ready)
    return ordered


def _filled(value: object, environment: Mapping[str, str]) -> object:
    if isinstance(value, dict):
        return {name: _filled(each, environment) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, environment) for each in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda found: environment.get(found[1]) or found[2] or "", value)
