"""The lineage tree of a registered version: as text, as JSON, and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from typing import TYPE_CHECKING

from dav2.tracking import registry
from dav2.tracking.lineage import Lineage
from dav2.tracking.store import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SHORT = 12
"""Characters of a hash that people see; JSON has all of them."""

ROW, INDENT, WIDTH = 26, 26, 900
COLOURS = {"model": "#2563a8", "code": "#6b7280", "settings": "#6b7280", "data": "#1a7f37", "labels": "#9a6700"}


@dataclass(frozen=True)
class Node:
    """One thing that a model came from.

    Attributes:
        kind: ``model``, ``code``, ``settings``, ``data`` or ``labels``.
        name: model with version, source, commit.
        facts: further values by name; hashes in full.
        children: what it came from in turn.
    """

    kind: str
    name: str
    facts: dict[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """The node and all below it as plain values."""
        return asdict(self)

    @property
    def line(self) -> str:
        """One line for people: kind, name, facts with hashes cut short."""
        facts = ", ".join(f"{name} {_short(value)}" for name, value in self.facts.items())
        return f"{self.kind} {self.name}" + (f"  ({facts})" if facts else "")


def tree_of(api: MlflowClient, version: ModelVersion) -> Node:
    """The whole tree below a version; a parent that was never registered ends its branch."""
    lineage = registry.lineage_of(api, version)
    facts = {"weights": lineage.weights_sha256}
    aliases = [str(alias) for alias in version.aliases]
    if aliases:
        facts["alias"] = " and ".join(sorted(aliases))
    children = [*_made_from(lineage), *(_outside(each) for each in lineage.outside)]
    children += [_parent(api, parent) for parent in lineage.parents]
    return Node("model", f"{version.name} version {version.version}", facts, children)


def _made_from(lineage: Lineage) -> Iterator[Node]:
    code = lineage.code
    if "commit" in code:
        state = {"state": f"{len(code['changed'])} files changed" if code["dirty"] else "clean"}
        yield Node("code", str(code["commit"]), state)
    else:
        yield Node("code", "unknown", {"because": str(code.get("unknown"))})
    recipe = lineage.parameters["recipe"]
    settings = {name: str(recipe[name]) for name in ("size", "steps", "batch", "crop") if name in recipe}
    yield Node("settings", lineage.run, {**settings, "seed": str(lineage.parameters["seed"])})
    for source, hashes in lineage.data.items():
        yield Node("data", source, dict(hashes))
    for source, hashes in lineage.labels.items():
        yield Node("labels", source, dict(hashes))


def _outside(origin: dict[str, str]) -> Node:
    facts = {"role": origin["role"], "licence": origin.get("licence", "unknown"), "weights": origin["weights_sha256"]}
    return Node("model", f"{origin['name']} (made elsewhere: {origin['source']})", facts)


def _parent(api: MlflowClient, parent: dict[str, str]) -> Node:
    if "version" in parent:
        try:
            return tree_of(api, registry.resolve(api, f"{parent['name']}/{parent['version']}"))
        except TrackingError as error:
            return Node("model", f"{parent['name']} version {parent['version']}", {"lost": str(error)})
    return Node("model", f"{parent['run']} (not registered)", {"weights": parent["weights_sha256"]})


def as_text(node: Node) -> str:
    """The tree with one line per node."""
    return "\n".join(before + line for before, line in _lines(node, "", ""))


def _lines(node: Node, first: str, rest: str) -> Iterator[tuple[str, str]]:
    yield first, node.line
    for child in node.children:
        last = child is node.children[-1]
        yield from _lines(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))


def as_svg(node: Node) -> str:
    """The tree as an SVG picture that needs nothing else."""
    rows = list(_rows(node, 0, None))
    parts = []
    for index, (depth, parent, each) in enumerate(rows):
        x, y = 12 + depth * INDENT, 12 + index * ROW
        if parent is not None:
            from_x, from_y = 18 + (depth - 1) * INDENT, 12 + parent * ROW + 14
            parts.append(f'<path d="M{from_x} {from_y}V{y + 6}H{x}" fill="none" stroke="#9ca3af"/>')
        parts.append(f'<circle cx="{x + 6}" cy="{y + 6}" r="6" fill="{COLOURS[each.kind]}"/>')
        weight = "600" if each.kind == "model" else "400"
        parts.append(f'<text x="{x + 18}" y="{y + 11}" font-weight="{weight}">{escape(each.line)}</text>')
    height = 16 + len(rows) * ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _rows(node: Node, depth: int, parent: int | None, taken: int = 0) -> Iterator[tuple[int, int | None, Node]]:
    """Nodes from top to bottom with their depth and the row of their parent."""
    yield depth, parent, node
    below = taken + 1
    for child in node.children:
        rows = list(_rows(child, depth + 1, taken, below))
        below += len(rows)
        yield from rows


def _short(value: str) -> str:
    hexadecimal = len(value) >= 32 and all(letter in "0123456789abcdef" for letter in value.removesuffix(".dir"))
    return value[:SHORT] if hexadecimal else value
