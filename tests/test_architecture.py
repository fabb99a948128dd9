"""The floors and rooms of the house: who may import whom, and what starting up may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from framebank import cli
from tests import ROOT

# The rooms of each floor in the order in which imports go: a room imports those before it.
# "" are the modules of the floor itself.
ROOMS = {
    "features": [
        "", "pages", "web", "stores", "cache", "export", "decoding", "decoders", "network",
        "questions", "extraction", "asking", "browsing", "commands",
    ],
    "pipelines": [
        "", "inputs", "jobs", "runners.flink", "runners.dataflow", "runners", "extract", "score",
        "forecast",
    ],
    "train": [
        "", "model", "word_vectors", "data", "tracking", "workers", "judging", "fit", "finetune",
        "evaluation", "retrain", "serve", "ways", "demo",
    ],
}  # fmt: skip
FORBIDDEN = {
    "features": {"framebank.pipelines", "framebank.train", "apache_beam"},
    "pipelines": {"framebank.train"},
    "train": {"framebank.pipelines", "apache_beam"},
}
MOST_MODULES = 16


def modules() -> dict[str, Path]:
    """Return the path of each module of the floors, by its name without `framebank.`."""
    found = {}
    for floor in ROOMS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """Yield each module that `path` imports, wherever it does; of packages the module meant."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner.removeprefix("framebank.") in MODULES else str(node.module)


def own_imports(name: str) -> set[str]:
    found = (one.removeprefix("framebank.") for one in imported(MODULES[name]))
    return {one for one in found if one in MODULES} - {name}


def room_of(name: str) -> tuple[str, str]:
    floor, _, rest = name.partition(".")
    if MODULES[name].name != "__init__.py":
        rest = rest.rpartition(".")[0]
    return floor, rest


@pytest.mark.parametrize("floor", ROOMS)
def test_no_floor_imports_one_above(floor: str) -> None:
    for name, path in MODULES.items():
        if name.partition(".")[0] == floor:
            for one in imported(path):
                wrong = {".".join(one.split(".")[:n]) for n in (1, 2)} & FORBIDDEN[floor]
                assert not wrong, f"{path} imports {one}"


def test_everything_of_ours_goes_by_its_whole_name() -> None:
    for path in [*MODULES.values(), *ROOT.glob("framebank/*.py"), *ROOT.glob("tests/**/*.py")]:
        for one in imported(path):
            assert one.split(".")[0] not in {*ROOMS, "infra"}, f"{path} imports {one}"


def test_every_folder_is_a_room_with_a_front_door() -> None:
    for name, path in MODULES.items():
        floor, room = room_of(name)
        assert room in ROOMS[floor] or (floor, room) == ("pipelines", "runners"), name
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_imports_go_down_the_list_of_rooms() -> None:
    for name in MODULES:
        floor, room = room_of(name)
        if MODULES[name].name == "__init__.py" and not room:
            continue  # the floor's own front door names what is in its rooms
        allowed = ROOMS[floor][: ROOMS[floor].index(room) + 1]
        for one in own_imports(name):
            there, other = room_of(one)
            assert there != floor or other in allowed, f"{name} imports {one}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: own_imports(name) for name in MODULES if MODULES[name].name != "__init__.py"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_folder_is_crowded() -> None:
    folders = [path.parent for path in (*MODULES.values(), *(ROOT / "tests").rglob("*.py"))]
    for folder in set(folders):
        assert len(list(folder.glob("*.py"))) <= MOST_MODULES, folder


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["-V", "-v"],
        ["extract", "--help"],
        ["inspect", "--help"],
        ["completion", "fish"],
    ],
)
def test_help_loads_neither_tensorflow_nor_beam(words: list[str]) -> None:
    code = (
        "import sys, framebank\n"
        f"try: framebank.main({words!r})\n"
        "except SystemExit: pass\n"
        "print({'tensorflow', 'keras', 'apache_beam'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "set()"
    assert done.stdout


def test_commands_that_read_words_wake_no_arrow() -> None:
    modules = ["features.questions", "features.asking", "train.fit", "train.evaluation"]
    imports = "; ".join(f"import framebank.{name}.command" for name in modules)
    code = f"import sys; {imports}; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_every_command_is_there() -> None:
    for name, command in cli.COMMANDS.items():
        assert command.module in MODULES, name
