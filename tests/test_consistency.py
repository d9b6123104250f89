"""What is written in two places must agree: dvc.yaml with the code, the tree with the rules of the house."""

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DVC = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
# DVC tracks the values of params, and an error ends a run: a word in either changes no result
NO_DEPENDENCY = {Path("cxr/params.py"), Path("cxr/errors.py")}
STAGES = {name: stage.get("do", stage) for name, stage in DVC.items()}


def modules_of(path: Path) -> set[Path]:
    """Every project file that importing `path` reads, itself included, imports inside functions too."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        if file in NO_DEPENDENCY:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            waiting += [found for name in names if (found := file_of(name))]
    return {file for file in seen if any(not is_text(node) for node in ast.parse(file.read_text()).body)}


def is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def file_of(module: str) -> Path | None:
    if module.split(".")[0] not in ("cxr", "stages", "flows", "checks", "server"):
        return None
    path = Path(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def entry_of(stage: str) -> Path:
    """What `python -m stages.<stage>` runs: a module, or the `__main__` of a package."""
    path = Path("stages", stage)
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


def test_stages_are_modules_and_modules_are_stages():
    modules = {path.stem for path in Path("stages").glob("*.py")} - {"__init__"}
    assert set(STAGES) == modules | {path.parent.name for path in Path("stages").glob("*/__main__.py")}


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_a_stage_imports_is_one_of_its_deps(stage):
    """A missing entry means a stale model and no warning."""
    deps = [Path(dep) for dep in STAGES[stage]["deps"] if not dep.startswith(("data", "models", "reports"))]
    used = modules_of(entry_of(stage)) - NO_DEPENDENCY
    if stage == "package":
        used |= modules_of(Path("service.py")) - NO_DEPENDENCY  # it builds what ships
    uncovered = {file for file in used if not any(file == dep or dep in file.parents for dep in deps)}
    assert not uncovered
    unused = {
        dep
        for dep in deps
        if (dep.suffix == ".py" and dep not in used) or (dep.is_dir() and not set(dep.rglob("*")) & used)
    } - {Path("web")}
    assert not unused


def test_importing_a_module_costs_no_heavy_library():
    """In one fresh interpreter: what is not there after the last import was brought in by none of them."""
    heavy = ("tensorflow", "keras", "evidently", "great_expectations", "prefect", "dvc")
    code = f"""
import importlib, sys
for name in {["service", *(f"stages.{stage}" for stage in STAGES), "cxr.release.model"]}:
    importlib.import_module(name)
    print(name, [library for library in {heavy} if library in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 + len(STAGES)
    assert [line for line in lines if not line.endswith("[]")] == []


def test_what_ships_needs_no_training_library():
    shipped = Path("requirements/serve.txt").read_text()
    for name in ("tensorflow", "keras", "dvc", "prefect", "evidently", "great-expectations"):
        assert f"\n{name}==" not in shipped
    assert versions(shipped).items() <= versions(Path("requirements/run.txt").read_text()).items()


def test_every_environment_has_the_same_versions_and_names_no_address():
    texts = {path.name: path.read_text() for path in Path("requirements").glob("*.txt")}
    assert [name for name, text in texts.items() if "://" in text or "--index-url" in text] == []
    pins = {name: versions(text) for name, text in texts.items()}
    for one, other in itertools.combinations(pins, 2):
        shared = pins[one].keys() & pins[other].keys()
        assert {name: pins[one][name] for name in shared} == {name: pins[other][name] for name in shared}, (one, other)


def versions(requirements: str) -> dict[str, str]:
    """Name -> version of every pin, markers left out."""
    pins = [line.split()[0].split("==") for line in requirements.splitlines() if "==" in line and "--hash" not in line]
    return {pin[0]: pin[1] for pin in pins}
