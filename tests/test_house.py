"""What holds the house together: imports point one way, stages name the code they run, and its front is what it was."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from dav2 import house
from dav2.imports import CARRIERS, closure, code_digest, essence, imports_of, module_file

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
NAMED = {
    "flows.ingest": ["dav2.data.raw.sources"],
    "flows.train": ["dav2.families.depth_anything.family", "dav2.families.marigold.family", "dav2.families.rank"],
    "flows.evaluate": ["dav2.families.depth_anything.family", "dav2.families.marigold.family"],
}
"""What a stage imports by a name in a table, which no import statement shows."""
THROUGH_THE_DOOR = {"dav2.tracking.serving"}


def test_rooms_use_only_what_lies_below_them() -> None:
    floor = {room: number for number, rooms in enumerate(house.FLOORS) for room in rooms}
    ground = len(house.FLOORS) - 1
    wrong = []
    for here, others in house.arrows().items():
        for there, imports in others.items():
            if here == house.DOOR or (here == "cli" and there == house.ALONE):
                continue
            # People's own way in, as those who write a serving script or a page would use it.
            if there == house.DOOR and all(module in THROUGH_THE_DOOR for module, _ in imports):
                continue
            down = floor.get(here, -1) < floor.get(there, -1) or floor.get(here) == floor.get(there) == ground
            if not down:
                wrong += [f"{module} imports {other}" for module, other in imports]
    assert not wrong, "\n".join(wrong)


def test_rooms_know_no_family_by_its_name() -> None:
    """But for the commands that are about one family: what a room asks of a model goes through ``Family``."""
    wrong = [
        f"{module} imports {other}"
        for here, others in house.arrows().items()
        for there, imports in others.items()
        for module, other in imports
        if there.startswith("families.") and not (here == "cli" or here.startswith("families"))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_has_a_room() -> None:
    rooms = {room for floor in house.FLOORS for room in floor} | {house.ALONE, house.DOOR}
    assert {house.room_of(module) for module in house.modules()} <= rooms


def test_no_files_import_each_other_in_a_circle() -> None:
    ahead = {module: set(imports_of(module)) & set(house.modules()) for module in house.modules()}
    while free := [module for module, needs in ahead.items() if not needs]:
        ahead = {module: needs - set(free) for module, needs in ahead.items() if module not in free}
    assert not ahead, f"in a circle, or above one: {', '.join(sorted(ahead))}"


def test_imports_are_seen_wherever_they_stand() -> None:
    assert "dav2.data.feed.loader" in imports_of("dav2.families.depth_anything.family")
    assert "dav2.training.ray_launch" in imports_of("dav2.training.launch"), "inside a function"
    assert "dav2.training.recipes" not in imports_of("dav2.families.depth_anything.family"), "for type checkers only"


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_depends_on_all_the_code_it_runs(name: str) -> None:
    stage = STAGES[name].get("do", STAGES[name])
    flow = re.search(r"-m (flows\.\w+)", stage["cmd"])
    assert flow is not None
    roots = [*(each for each in _used_by(flow[1])), *NAMED.get(flow[1], [])]
    carriers = [each for each in CARRIERS if name != "register" or each != "dav2.tracking"]
    named = [ROOT / dep for dep in stage["deps"] if dep.startswith("dav2/")]
    assert all(path.exists() for path in named), f"{name}: a dependency is not there"
    files = {module: module_file(module) for module in closure(roots, carriers)}
    missing = [
        module
        for module, file in files.items()
        if file is not None and not any(file == path or path in file.parents for path in named)
    ]
    assert not missing, f"{name} runs code that it does not depend on: {', '.join(missing)}"


def _used_by(flow: str) -> list[str]:
    """Modules of dav2 that a flow's file imports."""
    found = []
    for node in ast.walk(ast.parse((ROOT / f"{flow.replace('.', '/')}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dav2":
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [member if module_file(member) else str(node.module) for member in members]
    return found


def test_comments_and_docstrings_are_no_code() -> None:
    plain = "def one() -> int:\n    return 1  # because\n"
    told = '"""A module."""\n\n\ndef one() -> int:\n    """Gives one."""\n    # A number.\n    return 1\n'
    assert essence(plain) == essence(told)
    assert essence(plain) != essence(plain.replace("return 1", "return 2"))
    assert essence('NAME = "a # b"\n') == 'NAME = "a # b"'


def test_a_digest_follows_the_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "outlying"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "root.py").write_text("def run():\n    from outlying import leaf\n\n    return leaf.VALUE\n")
    (package / "leaf.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)

    def digest() -> str:
        imports_of.cache_clear()
        module_file.cache_clear()
        return code_digest(["outlying.root"])

    before = digest()
    (package / "leaf.py").write_text("# once more\nVALUE = 1\n")
    assert digest() == before
    (package / "leaf.py").write_text("VALUE = 2\n")
    assert digest() != before


def test_files_and_functions_are_short() -> None:
    long = [f"{path}: {lines} lines" for lines, path in house.longest() if lines > 300]
    for module in house.modules():
        file = module_file(module)
        assert file is not None
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                long.append(f"{module}.{node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines")
    assert not long, "\n".join(long)


MOST_ANY = 208
"""Lines of the house that may say ``Any``, imports included; it only ever goes down. The word in a sentence is free."""


def test_any_does_not_come_back() -> None:
    files = [file for room in ("dav2", "flows") for file in sorted((ROOT / room).rglob("*.py"))]
    lines = [
        f"{file.relative_to(ROOT)}: {line.strip()}" for file in files for line in file.read_text("utf-8").splitlines()
    ]
    found = [line for line in lines if re.search(r"\bAny\b(?! [a-z])", line)]
    assert len(found) <= MOST_ANY, f"{len(found)} lines say Any, {MOST_ANY} may:\n" + "\n".join(found)


def test_the_plan_can_be_drawn() -> None:
    drawn = house.draw()
    assert max(map(len, drawn.splitlines())) <= 80
    assert all(room in drawn for floor in house.FLOORS for room in floor)


def _public(body: list[ast.stmt], owner: str = "") -> list[tuple[str, str, ast.ClassDef | ast.FunctionDef]]:
    """(class, name, node) of everything public in a module."""
    found: list[tuple[str, str, ast.ClassDef | ast.FunctionDef]] = []
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            found.append((owner, node.name, node))
            found += _public(node.body, node.name) if isinstance(node, ast.ClassDef) else []
    return found


def test_public_things_say_what_they_are() -> None:
    trees = {module: ast.parse((module_file(module) or Path()).read_text("utf-8")) for module in house.modules()}
    things = {module: _public(tree.body) for module, tree in trees.items()}
    classes = {n.name: n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}

    def inherited(owner: str, name: str) -> bool:
        """Whether a base class says it: one of ours, or of a library, whose words are not repeated."""
        bases = [base.value if isinstance(base, ast.Subscript) else base for base in classes[owner].bases]
        for base in (getattr(base, "id", getattr(base, "attr", "")) for base in bases):
            if base not in classes:
                if base not in ("object", "NamedTuple", "Protocol", "ABC", "Generic", "Section", "Exception"):
                    return True
            elif inherited(base, name) or any(
                o == base and n == name and ast.get_docstring(node)
                for members in things.values()
                for o, n, node in members
            ):
                return True
        return False

    silent = [
        f"{module}.{owner}.{name}".replace("..", ".")
        for module, members in things.items()
        for owner, name, node in members
        if not ast.get_docstring(node) and not (owner and inherited(owner, name))
    ]
    assert len(silent) <= 0.05 * sum(map(len, things.values())), "\n".join(silent)
