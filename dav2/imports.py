"""What a module of this package imports, read from the source: for stages that must know the code they run.

A stage is stale when any code that decides its output has changed, and nothing but a look at the imports says which
code that is. Imports inside functions count; those for type checkers do not.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

CARRIERS = (
    "dav2",
    "dav2.cli",
    "dav2.code_state",
    "dav2.doctor",
    "dav2.documents",
    "dav2.files",
    "dav2.imports",
    "dav2.layout",
    "dav2.limits",
    "dav2.locks",
    "dav2.machine",
    "dav2.memory",
    "dav2.params",
    "dav2.runs",
    "dav2.slurm",
    "dav2.tracking",
)
"""Modules that say where and how work is done, or record it, and decide no value: settings and precision, which they
read or choose, stand in every fingerprint themselves."""


@cache
def module_file(module: str) -> Path | None:
    """Source file of a module that can be imported, without importing it; ``None`` where there is none."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None or spec.submodule_search_locations is None:
        return Path(spec.origin) if spec is not None and spec.origin and not rest else None
    for location in spec.submodule_search_locations:
        path = Path(location, *rest)
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if candidate.is_file() and (rest or candidate.name == "__init__.py"):
                return candidate
    return None


@cache
def imports_of(module: str) -> frozenset[str]:
    """Modules of the same top-level package that ``module`` imports, anywhere in its source."""
    file = module_file(module)
    if file is None:
        return frozenset()
    top = module.split(".")[0]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in _live(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            members = [f"{base}.{alias.name}" for alias in node.names]
            modules = [member for member in members if module_file(member) is not None]
            found.update(modules)
            if len(modules) < len(members):
                found.add(base)
    return frozenset(name for name in found if name.split(".")[0] == top and module_file(name) is not None) - {module}


def closure(roots: Iterable[str], leave_out: Iterable[str] = CARRIERS) -> list[str]:
    """``roots`` and all that they import, directly or not, in alphabetical order.

    Args:
        roots: modules by name.
        leave_out: modules, and packages with all that is in them, that are neither listed nor followed. A package named
            by a single word stands for its ``__init__`` alone.
    """
    left_out = tuple(leave_out)
    seen: set[str] = set()
    ahead = list(roots)
    while ahead:
        module = ahead.pop()
        if module in seen or _within(module, left_out):
            continue
        seen.add(module)
        ahead += imports_of(module)
    return sorted(seen)


def code_digest(roots: Iterable[str]) -> str:
    """SHA-256 of the code in the :func:`closure` of ``roots``: comments, docstrings and blank lines do not count."""
    digest = hashlib.sha256()
    for module in closure(roots):
        file = module_file(module)
        if file is not None:
            digest.update(f"{module}\n{essence(file.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()


def essence(source: str) -> str:
    """Source without comments, docstrings and blank lines; the same under every version of Python."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        # A string that stands alone is a docstring, or documents the name above it.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for row in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == each or ("." in each and module.startswith(f"{each}.")) for each in packages)


def _live(tree: ast.AST) -> Iterable[ast.AST]:
    """Every node but those that only a type checker reads."""
    ahead: list[ast.AST] = [tree]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            ahead += node.orelse
            continue
        yield node
        ahead += ast.iter_child_nodes(node)
