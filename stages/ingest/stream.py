# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportReturnType=false
"""Stream one source once: decode, square and shrink each image into shards; keep what is said of it as records."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import cxr
from cxr.dataset.manifest import RECORD_COLUMNS, write_table
from cxr.dataset.rejected import told, words_not_understood
from cxr.dataset.seen import Seen
from cxr.dataset.store import Key, ShardStore
from cxr.errors import ImageError, SourceError
from cxr.executors import Backend, map_in_order, open_backend
from cxr.files import write_csv
from cxr.params import IngestParams, SourceParams
from cxr.pixels.stated import NO_FRONTAL_FILM
from cxr.raw.archives import Member, Tree
from cxr.sources import READERS, Found, SetAside
from stages.ingest.decode import Job, decode_batch, gave_up, prepare_worker

BATCH_FILES = 16  # sending a batch must cost little beside decoding it
BATCH_BYTES = 4_000_000  # and many large files must not wait in memory
PIXELS = "pixels/*.*"  # what in cxr/ decides on pixels and facts
SAID = [f.name for f in fields(Found) if f.name not in ("member", "mask")]  # what a source says of an image
NO_BOXES = "[]"  # of an image that was searched for its region in vain
UNUSABLE_MASK = "unusable mask"
STATED = {"view_position": "stated_view", "age_years": "stated_age_years", "sex": "stated_sex"}  # record: fact
UNLIKE_SOURCE = "unlike_source"  # note: the header states another view or sex than the source; is it another's row?
REJECTED_COLUMNS = ["path", "reason", "detail", "score", "shard", "row"]


@dataclass
class Account:
    """Everything that the reader yielded: nothing is lost between raw and records.

    `said`: values of SAID of each image found. `masks`: the path of its mask's file, None without one. `positions`:
    where the facts about it stand in the store.
    """

    said: list[tuple] = field(default_factory=list)
    masks: list[str | None] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)


def ingest(source: str, reading: SourceParams, params: IngestParams, raw: Path, folder: Path, seen_at: Path) -> None:
    """Read `raw` and write shards, `records.parquet` and `rejected.csv` to `folder`.

    What `folder` holds of the same bytes, made by the same recipe, is kept: a run that was killed goes on, and new
    files cost only themselves. `seen_at`: see `cxr.dataset.seen`.
    """
    store = ShardStore(folder, recipe(params), params.shard_images)
    seen = Seen(seen_at)
    before = len(store)
    account = read_source(reading, params, raw, store, seen)
    store.flush()
    records, rejected = to_tables(source, account, store.facts(), params.min_content_score)
    if records.empty:
        reasons = rejected["reason"].value_counts()
        why = f", mostly: {reasons.index[0]} ({reasons.iloc[0]})" if len(reasons) else ""
        raise SourceError(f"{raw}: none of {len(rejected)} files or rows gave an image{why}; is this {reading.reader}?")
    write_csv(folder / "rejected.csv", rejected)
    write_table(records, folder / "records.parquet")
    unused = len(store) - len(set(account.positions))
    print(
        f"{source}: {len(records)} images ({len(store) - before} files decoded now), "
        f"{len(rejected)} files or rows left out (see {folder}/rejected.csv)"
    )
    for code, films in records["notes"].dropna().str.split("|").explode().value_counts().items():
        print(f"{source}: {films} images with the note {code}, see the column notes of records.parquet")
    for line in told(source, words_not_understood(rejected)):
        print(line)
    if unused:
        print(f"{source}: the shards still hold {unused} changed or removed files; delete {folder} to start clean")


def recipe(params: IngestParams) -> dict:
    """What pixels and facts depend on; where it changes, everything is decoded again."""
    code = hashlib.sha256()
    library = Path(cxr.__file__).parent
    for path in (*sorted(library.glob(PIXELS)), library / "words.py", Path(__file__).with_name("decode.py")):
        code.update(path.read_bytes())
    return {
        "pixels": params.pixels.model_dump(),
        "shard_images": params.shard_images,
        "code": code.hexdigest(),
        **{name: version(name) for name in ("opencv-python-headless", "pydicom", "imagecodecs")},
    }


def read_source(reading: SourceParams, params: IngestParams, raw: Path, store: ShardStore, seen: Seen) -> Account:
    """Decode what is new into `store`, and account for every file and row."""
    account = Account()
    places: list[list[tuple[str, Path]]] = []  # of each image found: its member and its mask's, and what holds them
    tree = Tree(raw, listed=seen.tars(raw, store.holds))
    with open_backend(params, prepare_worker) as backend:

        def jobs(items: Iterable[Found | SetAside]) -> Iterator[Job]:
            for item in items:
                if isinstance(item, SetAside):
                    account.set_aside.append(item)
                    continue
                key = seen_key(item, seen)
                position = store.position_of(key)
                data, drawn = b"", None
                try:
                    if position < 0:
                        data = sent(item.member, backend)
                        item, drawn = with_mask(item, backend, account)
                except ImageError as error:
                    account.set_aside.append(SetAside(item.path, "unreadable file", str(error)))
                    continue
                account.said.append(tuple(getattr(item, name) for name in SAID))
                account.masks.append(item.mask.path if item.mask else None)
                account.positions.append(position)
                places.append([(member.path, member.file) for member in (item.member, item.mask) if member])
                if key is not None and position >= 0:
                    note(seen, places[-1], key)
                else:
                    yield Job(len(places) - 1, data, store.key_of(item.path), params.pixels, drawn)

        items = tqdm(READERS[reading.reader](tree, reading), desc=f"ingest {reading.reader}", unit=" files")
        for batch, results in map_in_order(backend, decode_batch, in_batches(jobs(items)), gave_up):
            for job, decoded in zip(batch, results, strict=True):
                account.positions[job.entry] = store.add(account.said[job.entry][0], *decoded)
                note(seen, places[job.entry], decoded.key)
    seen.save(raw, tree.walked if reading.reader != "dicom" else {})  # names in a hospital's tar may be patients'
    return account


def seen_key(item: Found, seen: Seen) -> Key | None:
    """The key of an image and its mask where neither has changed since they were read, else None."""
    sha256 = seen.digest(item.member)
    mask_sha256 = None
    if item.mask:
        mask_sha256 = seen.digest(item.mask)
    elif item.region:
        mask_sha256 = hashlib.sha256((item.boxes or NO_BOXES).encode()).hexdigest()
    return None if sha256 is None or (item.mask and mask_sha256 is None) else (sha256, mask_sha256)


def note(seen: Seen, places: list[tuple[str, Path]], key: Key) -> None:
    for (path, file), digest in zip(places, key, strict=False):  # boxes have a digest and no file
        if digest is not None:
            seen.note(path, file, digest)


def sent(member: Member, backend: Backend) -> Path | bytes:
    """How a file goes to a worker. Raises ImageError where it cannot be read."""
    return member.file if backend.reads_files and member.is_loose else member.read()


def with_mask(item: Found, backend: Backend, account: Account) -> tuple[Found, Path | bytes | str | None]:
    """The image with what its mask is made of; without one where its file cannot be read, which is set aside."""
    if item.mask is None:
        return item, (item.boxes or NO_BOXES) if item.region else None
    try:
        return item, sent(item.mask, backend)
    except ImageError as error:
        account.set_aside.append(SetAside(item.mask.path, UNUSABLE_MASK, str(error)))
        return replace(item, mask=None, region=None), None


def in_batches(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    batch: list[Job] = []
    size = 0
    for job in jobs:
        batch.append(job)
        files = [file for file in (job.file, job.mask) if file is not None]
        size += sum(file.stat().st_size if isinstance(file, Path) else len(file) for file in files)
        if len(batch) == BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def to_tables(
    source: str, account: Account, facts: pd.DataFrame, min_content_score: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records, and what was left out with its reasons; together they are the account."""
    found = pd.DataFrame.from_records(account.said, columns=SAID).assign(mask_path=account.masks)
    of = facts.iloc[account.positions].reset_index(drop=True)
    table = found.join(of.drop(columns="path"))
    bad_mask = table["mask_fault"].notna()
    table["mask"] = table["region"].where(table["mask_sha256"].notna() & ~bad_mask, None)
    unreadable = table["fault"].notna()
    refused = ~unreadable & (table["not_frontal"].notna() | (table["content_score"] < min_content_score))
    table["reason"] = np.select([unreadable, refused], ["unreadable image", NO_FRONTAL_FILM], "")
    # as `cxr.pixels.examine.Film.refusal` has it
    table["detail"] = table["fault"].fillna(table["not_frontal"]).fillna(table["content_reason"])
    table["score"] = table["content_score"].round(4)

    records = table[~unreadable & ~refused].copy()
    records["image_id"] = f"{source}/" + records["path"]
    records["patient_id"] = f"{source}/" + records["patient_id"]
    records["source"] = source
    unlike = pd.Series(False, index=records.index)
    for column, stated in STATED.items():
        said = records[column].astype(RECORD_COLUMNS[column])
        if column != "age_years":  # which sources count in their own ways
            unlike |= (said != records[stated]).fillna(False).astype(bool)
        records[column] = said.fillna(records[stated])  # where the source does not say, its files may
    noted = (records["notes"].fillna("") + np.where(unlike, f"|{UNLIKE_SOURCE}", "")).str.strip("|")
    records["notes"] = noted.where(noted != "")
    set_aside = pd.DataFrame([(s.path, s.reason, s.detail) for s in account.set_aside], columns=REJECTED_COLUMNS[:3])
    masks = table.loc[bad_mask, ["mask_path", "mask_fault"]].set_axis(["path", "detail"], axis=1)
    masks["reason"] = UNUSABLE_MASK
    left_out = table.loc[unreadable | refused, REJECTED_COLUMNS]
    rejected = pd.concat([set_aside, masks, left_out], ignore_index=True)[REJECTED_COLUMNS]
    rejected["row"] = rejected["row"].where(rejected["shard"].notna()).astype("Int32")
    return records[list(RECORD_COLUMNS)].astype(RECORD_COLUMNS), rejected
