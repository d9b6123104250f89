"""The Bento holds what the service imports and no more, and runs where nothing else is installed."""

import os
import shutil
import subprocess
import sys
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

from cxr.pixels.examine import examine
from cxr.release.model import Release
from stages.package import shipped_files
from tests.image_files import draw, jpeg
from tests.live_service import BENTOML, ROOT, ConnectionCounter, serve, service_environment

UV = Path(sys.executable).with_name("uv")
UNREACHABLE = ("dns error", "client error (Connect)", "operation timed out", "tunnel error")  # of the registry, by uv
FILM = jpeg(draw())


def imported_by_the_service() -> set[str]:
    """Every file of the repository that importing `service.py` can read, imports inside functions too."""
    finder = ModuleFinder(path=[str(ROOT)])  # so that what is installed is not followed
    finder.run_script(str(ROOT / "service.py"))
    files = {Path(module.__file__).resolve() for module in finder.modules.values() if module.__file__}
    return {file.relative_to(ROOT).as_posix() for file in files}


@pytest.fixture(scope="module")
def bento(heavy: None, tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of BENTOML_HOME's parent after a plain `bentoml build` in a copy of the repository."""
    root = tmp_path_factory.mktemp("bento")
    source = root / "source"
    for name in ("bentofile.yaml", "service.py", "requirements", "cxr", "server", "web", "stages", "tests"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    shutil.copytree(tiny_release, source / "models/release")
    outside = ConnectionCounter()
    command = [BENTOML, "build", "--version", "tiny"]
    subprocess.run(command, cwd=source, env=service_environment(root, outside), check=True, capture_output=True)
    assert outside.connections == 0
    outside.close()
    shutil.rmtree(source)
    return root


def test_bentofile_names_every_module_that_the_service_imports_and_no_other() -> None:
    named = {path.as_posix() for path in shipped_files() if path.suffix == ".py"}
    assert named == imported_by_the_service()


def test_a_plain_build_holds_what_package_builds_from(bento: Path, tiny_release: Path) -> None:
    built = bento / "bentoml/bentos/chest_xray/tiny/src"
    files = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    release = {f"models/release/{path.name}" for path in tiny_release.iterdir()}
    apart = {"bentofile.yaml", "requirements/serve.txt"}  # BentoML keeps them in its own form outside src/
    assert files - apart == {path.as_posix() for path in shipped_files()} - apart | release
    assert "cxr/pixels/content.json" in files


def test_a_pattern_that_names_no_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cxr.errors import CxrError

    (tmp_path / "bentofile.yaml").write_text(
        "include: [/models/release/*, /cxr/absent.py]\npython: {requirements_txt: serve.txt}\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CxrError, match=r"bentofile.yaml: include names cxr/absent.py, and there is no such file"):
        shipped_files()


@pytest.fixture(scope="module")
def serving_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment made of requirements/serve.txt alone; needs the package registry, or uv's cache."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install = [UV, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", ROOT / "requirements/serve.txt"]
    environment = os.environ | {"VIRTUAL_ENV": str(folder)}
    done = subprocess.run(install, env=environment, capture_output=True, text=True)
    if done.returncode and any(words in done.stderr for words in UNREACHABLE):
        pytest.skip("the package registry cannot be reached")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def test_the_bento_answers_where_only_its_requirements_are_installed(
    bento: Path, serving_environment: Path, tiny_release: Path
) -> None:
    """Started by its name in another folder, with nothing of the repository at hand."""
    elsewhere = bento / "elsewhere"
    elsewhere.mkdir()
    release = Release.load(tiny_release)
    expected = release.answer(examine(FILM, release.facts.pixels))
    program, log = serving_environment / "bentoml", "sqlite:///here.sqlite"
    with serve(bento, "chest_xray:tiny", elsewhere, bentoml=program, CXR_PREDICTION_LOG=log) as live:
        answer = live.client.post("/v1/predict", files={"file": FILM}).json()
        assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
        assert "<title>" in live.client.get("/").text
        assert (elsewhere / "here.sqlite").exists(), "a relative log belongs in the caller's folder"
        assert live.outside.connections == 0
