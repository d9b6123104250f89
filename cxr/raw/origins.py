"""What the address of an origin means: a path, a Kaggle set, a file over HTTP, or what fsspec opens."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence, Set
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fsspec
import requests
from requests.auth import AuthBase

from cxr.errors import SourceError
from cxr.params import RemoteFile, SourceParams
from cxr.raw.download import Remote, open_fsspec, open_http, without_secrets

KAGGLE_API = "https://www.kaggle.com/api/v1"
KAGGLE = re.compile(r"^kaggle:(?P<owner>\w[\w.-]*)/(?P<name>\w[\w.-]*)(?:/versions/(?P<version>\d+))?$")
KAGGLE_LOGIN = Path("~/.kaggle")  # where Kaggle's own tools keep it


def files_of(source: SourceParams) -> list[RemoteFile]:
    """The origin of a source as a list of addresses."""
    origins = [source.origin] if isinstance(source.origin, str) else source.origin
    return [RemoteFile(url=item, name=None, sha256=None) if isinstance(item, str) else item for item in origins]


def is_remote(address: str) -> bool:
    return address.startswith("kaggle:") or "://" in address


def remotes(files: Sequence[RemoteFile], taken: Set[str], where: str) -> list[Remote]:
    """Every file behind remote addresses; a folder that fsspec opens is listed.

    Raises SourceError for an address that cannot be used, and for a name that two files have or that is `taken`.
    """
    found = [remote for file in files for remote in _remotes(file, where)]
    count = Counter([*taken, *(remote.name for remote in found)])
    if twice := [name for name, times in count.items() if times > 1]:
        raise SourceError(f"{where}: several files are named {twice[0]}; write {{url: ..., name: ...}} for each")
    return found


def _remotes(file: RemoteFile, where: str) -> list[Remote]:
    if file.url.startswith("kaggle:"):
        return [_kaggle(file, where)]
    if urlsplit(file.url).scheme in ("http", "https"):
        return [_over_http(file, file.url, unquote(urlsplit(file.url).path).rpartition("/")[2], where, None)]
    return _listed(file, where)


def _over_http(file: RemoteFile, url: str, name: str, where: str, auth: AuthBase | tuple[str, str] | None) -> Remote:
    name = _safe(file.name or name, url, where)
    return Remote(name, without_secrets(url), file.sha256, partial(open_http, url, name, where, auth))


def _kaggle(file: RemoteFile, where: str) -> Remote:
    """The archive that Kaggle's page offers, not kagglehub's copy of it.

    kagglehub unpacks: while it does so a set stands twice on the disk, and afterwards as thousands of files.
    """
    match = KAGGLE.match(file.url)
    if not match:
        raise SourceError(
            f"{where}: {file.url!r} is no Kaggle set; expected kaggle:<owner>/<name>, or with /versions/<number>"
        )
    owner, name, version = match.group("owner", "name", "version")
    path = f"competitions/data/download-all/{name}" if owner == "competitions" else f"datasets/download/{owner}/{name}"
    url = f"{KAGGLE_API}/{path}" + (f"?datasetVersionNumber={version}" if version else "")
    return _over_http(file, url, f"{name}.zip", where, kaggle_login())


class _Token(AuthBase):
    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def kaggle_login() -> AuthBase | tuple[str, str] | None:
    """What Kaggle's own tools would use: KAGGLE_API_TOKEN, KAGGLE_USERNAME and KAGGLE_KEY, or the files of ~/.kaggle.

    None for nobody: a public set needs no login.
    """
    folder = KAGGLE_LOGIN.expanduser()
    if token := os.environ.get("KAGGLE_API_TOKEN"):
        return _Token(token)
    if "KAGGLE_USERNAME" in os.environ and "KAGGLE_KEY" in os.environ:
        return os.environ["KAGGLE_USERNAME"], os.environ["KAGGLE_KEY"]
    if (folder / "access_token").is_file():
        return _Token((folder / "access_token").read_text().strip())
    if (folder / "kaggle.json").is_file():
        try:
            login = json.loads((folder / "kaggle.json").read_text())
            return login["username"], login["key"]
        except (ValueError, KeyError, TypeError):
            raise SourceError(
                f"{folder}/kaggle.json: no JSON with username and key; download it again from Kaggle's settings"
            ) from None
    return None


def _listed(file: RemoteFile, where: str) -> list[Remote]:
    """One file, or all below a folder, under their paths within it."""
    shown = without_secrets(file.url)
    try:
        files, path = fsspec.core.url_to_fs(file.url)
        root = path.rstrip("/") + "/"
        below = {path: files.info(path)} if files.isfile(path) else files.find(path, detail=True)
    except ImportError as error:
        raise SourceError(f"{where}: {shown} needs a package that is not here: {error}, then run again") from error
    except Exception as error:  # every backend has its own kinds
        raise SourceError(
            f"{where}: {shown} cannot be listed ({error}); is it the right address, and does it want a login?"
        ) from error
    if not below:
        raise SourceError(f"{where}: {shown} holds no file, or does not exist; is the address still right?")
    if path not in below and (file.name or file.sha256):
        raise SourceError(f"{where}: {shown} is a folder; name and sha256 are of one file")
    found = []
    for one, info in sorted(below.items()):
        inside = one.removeprefix(root) if one != path else file.name or one.rpartition("/")[2]
        name = "/".join(_safe(part, one, where) for part in inside.split("/"))
        address = shown if one == path else f"{shown.rstrip('/')}/{inside}"
        found.append(Remote(name, address, file.sha256, partial(open_fsspec, files, one, address, where), info["size"]))
    return found


def _safe(name: str, address: str, where: str) -> str:
    """A file name that stays in its folder and is none of the downloader's own."""
    if name in ("", ".", "..") or name.endswith((".part", ".part.json")) or re.search(r"[/\\\x00-\x1f]", name):
        raise SourceError(
            f"{where}: {without_secrets(address)} gives no usable file name ({name!r}); "
            "write {url: ..., name: ...} with one"
        )
    return name
