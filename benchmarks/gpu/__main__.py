"""Speed and accuracy on one GPU, unattended: `python -m benchmarks.gpu --data FOLDER --out OUT`, again and again.

It needs keras, jax (which needs scipy), numpy and OpenCV, and no other package of this project. FOLDER holds Kermany's
JPEGs as published, in train/ and test/ with NORMAL/ and PNEUMONIA/ (or a chest_xray/ with these). The steps, each with
its result in OUT/<step>.json:

facts   the device and the versions
matrix  what the device reaches at most: the product of two square matrices
speed   training steps of each of --networks at 224 x 224: on a batch that stays on the device, and fed by the real
        input; in bfloat16 at several batch sizes, in float32 at one
study   presets trained from three seeds; the official test images are read when a training is over, and once

A run takes --minutes at most, then says what is left and exits with status 0; the same command goes on. What is done is
skipped, and a training goes on after its last whole epoch (OUT/work, with compiled programs). A step that fails leaves
OUT/<step>.failed.txt, is not tried again before that is removed, and makes the exit status 1. Nothing is begun that, by
what took longest before, may not end in time; a first step that takes longer than any before it can exceed the limit.
A run that is killed loses what it was at: an epoch, or a step of `speed`.

--presets FILE  a JSON list of {name, task, size, train, published}, where train is that section of params.yaml
--small         a trial of everything on a CPU
--table OUT     print the results as Markdown
"""

import argparse
import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.gpu.clock import Clock, OutOfTime
from benchmarks.gpu.kermany import find_root
from benchmarks.gpu.presets import PRESETS, read_presets
from benchmarks.gpu.results import failure_of, read_results, result_of
from benchmarks.gpu.table import print_table
from cxr.errors import CxrError, plain_errors
from cxr.files import write_whole

NETWORKS = ("residual", "densenet121", "resnet50")


@dataclass(frozen=True)
class Settings:
    """What the results in one folder share.

    `side` (pixels), `images` (an epoch), `rounds` and `batch_sizes` are those of `speed`, the last in bfloat16;
    `products` the sides of `matrix`. `most`: images of one finding and split that are read, `epochs`: most of one
    training; None for all.
    """

    networks: list[str]
    presets: list[dict]
    products: list[int]
    side: int
    images: int
    rounds: int
    batch_sizes: list[int]
    float32_batch_size: int
    seeds: int
    most: int | None
    epochs: int | None


def main() -> None:
    args = parse()
    if args.table:
        print_table(args.table)
        return
    os.environ.setdefault("KERAS_BACKEND", "jax")
    if os.environ["KERAS_BACKEND"] != "jax":
        raise CxrError(f"KERAS_BACKEND={os.environ['KERAS_BACKEND']}: this programme measures jax; unset it")
    settings = small(args) if args.small else full(args)
    data = find_root(args.data)
    keep_settings(args.out / "settings.json", settings)
    steps = dict(plan(settings, data, args.out))
    left = run(steps, args.out, args.minutes)
    failed = [path for name in left if (path := failure_of(args.out, name)).exists()]
    for path in failed:
        print(f"failed: {path}: {path.read_text().splitlines()[-1]}")
    waiting = [name for name in left if failure_of(args.out, name) not in failed]
    print(f"{len(steps) - len(left)} of {len(steps)} steps are done; left: {', '.join(waiting) or 'none'}")
    raise SystemExit(1 if failed else 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="see the module's docstring")
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--networks", default=",".join(NETWORKS), metavar="A,B", help="values of train.model")
    parser.add_argument("--presets", type=Path, metavar="FILE")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--table", type=Path, metavar="OUT")
    args = parser.parse_args()
    if not args.table and not (args.data and args.out):
        parser.error("--data and --out are needed, or --table")
    return args


def full(args: argparse.Namespace) -> Settings:
    return Settings(
        networks=args.networks.split(","),
        presets=read_presets(args.presets) if args.presets else PRESETS,
        products=[2048, 4096, 8192, 16384],
        side=224,
        images=4096,
        rounds=3,
        batch_sizes=[256, 128, 64],
        float32_batch_size=128,
        seeds=3,
        most=None,
        epochs=None,
    )


def small(args: argparse.Namespace) -> Settings:
    presets = [preset | {"size": min(preset["size"], 32)} for preset in full(args).presets]
    return Settings(
        networks=args.networks.split(","),
        presets=presets,
        products=[256, 512],
        side=32,
        images=16,
        rounds=1,
        batch_sizes=[4],
        float32_batch_size=4,
        seeds=2,
        most=8,
        epochs=2,
    )


def keep_settings(path: Path, settings: Settings) -> None:
    """Raises CxrError where the folder holds the results of other settings."""
    text = json.dumps(asdict(settings), indent=1)
    if path.exists() and path.read_text() != text:
        before = json.loads(path.read_text())
        changed = [name for name, value in asdict(settings).items() if before.get(name) != value]
        raise CxrError(f"{path}: the results there are of other {', '.join(changed)}; name another folder with --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


def plan(settings: Settings, data: Path, out: Path) -> Iterator[tuple[str, Callable[[Clock], dict]]]:
    """The steps by name, in order. Imports Keras."""
    from benchmarks.gpu import speed, study

    yield "facts", lambda _: speed.facts()
    yield "matrix", lambda _: speed.matrix(settings.products)
    for network in settings.networks:
        runs = [("bfloat16", batch_size) for batch_size in settings.batch_sizes]
        for precision, batch_size in [*runs, ("float32", settings.float32_batch_size)]:
            yield (
                f"speed-{network}-{precision}-{batch_size}",
                partial(measure_speed, settings, data, network, precision, batch_size),
            )
    for seed in range(settings.seeds):
        for preset in settings.presets:
            name = f"study-{preset['name']}-s{seed}"
            job = study.Job(preset, seed, data, settings.most, settings.epochs, out / "work" / name)
            yield name, partial(study.train_and_test, job)


def measure_speed(settings: Settings, data: Path, network: str, precision: str, batch_size: int, _: Clock) -> dict:
    from benchmarks.gpu import speed
    from benchmarks.gpu.kermany import load

    films = load(data, "train", settings.side, settings.most)
    return speed.throughput(network, precision, batch_size, films, settings.images, settings.rounds)


def run(steps: dict[str, Callable[[Clock], dict]], out: Path, minutes: float) -> list[str]:
    """Run what has neither a result nor failed, as long as there is time; returns the names of what has no result."""
    from benchmarks.gpu import speed

    speed.keep_compiled(out / "work" / "compiled")
    done = read_results(out, steps).values()
    clock = Clock(60 * minutes, max((found["longest_piece_s"] for found in done), default=0.0))
    for name, step in steps.items():
        if result_of(out, name).exists() or failure_of(out, name).exists():
            continue
        try:
            clock.next_piece()
            print(f"{name} ...", flush=True)
            found = step(clock)
        except OutOfTime:
            break
        except Exception:  # the steps do not depend on each other, and nobody is there to start the next one
            write_whole(failure_of(out, name), traceback.format_exc().strip().encode() + b"\n")
            traceback.print_exc()
        else:
            clock.end_piece()
            told = found | {"longest_piece_s": clock.longest}
            write_whole(result_of(out, name), json.dumps(told).encode() + b"\n")
            shutil.rmtree(out / "work" / name, ignore_errors=True)
        speed.forget()
    return [name for name in steps if not result_of(out, name).exists()]


if __name__ == "__main__":
    with plain_errors():
        main()
