"""What the documents name must exist: files, headings, modules, make targets, params."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md")
    for page in ROOT.glob(pattern)
)
LIVING = [page for page in PAGES if page != "CHANGELOG.md"]  # which alone names what is gone
ROOMS = ("benchmarks", "checks", "cxr", "flows", "requirements", "server", "stages", "studies", "study", "tests", "web")
WRITTEN_IN_TREE = ("checks", "cxr", "flows", "server", "stages", "study")  # whose every module the tree shows
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def code_of(text: str) -> list[str]:
    """What stands between backticks, and each line of the blocks of commands."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", without_blocks(text)) + "".join(blocks).splitlines()


def anchors_of(text: str) -> set[str]:
    """The headings as GitHub names them in addresses."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_runnable(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    if path.is_dir():
        return (path / "__main__.py").is_file()
    file = path.with_suffix(".py")
    return file.is_file() and 'if __name__ == "__main__":' in file.read_text()


def is_param(name: str) -> bool:
    value = PARAMS
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def tree_of(text: str) -> list[str]:
    """The paths of the annotated tree, folders with a slash at their end."""
    (block,) = re.findall(r"^## The tree\n\n```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    paths: list[str] = []
    folders: list[str] = []
    for line in filter(str.strip, block.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.match(r"((?:[\w.-]+(?:/|\.\w+)\s+)*)", line.strip() + " ")
        here = "".join(folders[:depth])
        for name in names[1].split() if names else ():
            paths.append(here + name)
            if name.endswith("/"):
                folders[depth:] = [name]
    return paths


def test_the_readme_is_short():
    assert len(text_of("README.md").split()) <= 1200


def test_every_page_of_the_docs_is_on_the_readmes_map():
    linked = set(re.findall(r"\]\(([^)#]+)", text_of("README.md")))
    assert {page for page in PAGES if page != "README.md"} <= linked


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page):
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(text_of(page))):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.is_file() or (anchor and anchor not in anchors_of(target.read_text())):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", LIVING)
def test_every_file_that_is_named_exists(page):
    named = [word for code in code_of(text_of(page)) for word in re.findall(r"[\w./-]+", code)]
    ours = {word.rstrip("./") for word in named if word.startswith(tuple(f"{room}/" for room in ROOMS))}
    placeholders = {word for word in ours if Path(word).stem.isupper()}
    assert {word for word in ours - placeholders if not (ROOT / word).exists()} == set()


@pytest.mark.parametrize("page", LIVING)
def test_every_module_that_is_to_be_run_can_be_run(page):
    modules = re.findall(r"python -m ((?:benchmarks|cxr|flows|stages|study)[\w.]*)", text_of(page))
    assert [module for module in modules if not is_runnable(module)] == []


@pytest.mark.parametrize("page", LIVING)
def test_every_make_target_that_is_named_exists(page):
    targets = set(re.findall(r"^([a-z][\w-]*):", text_of("Makefile"), re.MULTILINE))
    named = [
        name for code in code_of(text_of(page)) for name in re.findall(r"\bmake (?:[A-Z]\w*=\S+ )*([a-z][\w-]*)", code)
    ]
    assert [name for name in named if name not in targets] == []


@pytest.mark.parametrize("page", LIVING)
def test_every_param_that_is_named_exists(page):
    """`train.epochs` or, in a command, `-S train.epochs=3`."""
    pattern = rf"(?:^|-S '?)((?:{'|'.join(PARAMS)})(?:\.\w+)+)"
    names = [name for code in code_of(text_of(page)) for name in re.findall(pattern, code)]
    assert [name for name in names if not is_param(name)] == []


def test_the_tree_shows_every_module_and_nothing_else():
    shown = set(tree_of(text_of("docs/architecture.md")))
    assert {path for path in shown if not (ROOT / path).exists()} == set()
    files = subprocess.run(["git", "ls-files", *WRITTEN_IN_TREE], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = {file for file in files.stdout.split() if file.endswith(".py") and not Path(file).name.startswith("__")}
    assert modules - shown == set()


def test_the_citation_is_whole_and_of_this_version():
    """What the schema 1.2.0 of Citation File Format asks for."""
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    for entry in citation["references"]:
        assert {"type", "title", "authors"} <= entry.keys()
        assert all(author.keys() & {"name", "family-names"} for author in entry["authors"])
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert (str(citation["version"]), citation["license"]) == (project["version"], project["license"])
