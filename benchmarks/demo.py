"""How long the demo takes to draw, and what it holds: `python -m benchmarks.demo`."""

import tempfile
import time
from collections import Counter
from pathlib import Path

from cxr.demo import draw_source
from cxr.labels import TASKS, read_label
from cxr.params import SourceName, load_params
from cxr.sources import READERS, Found


def main() -> None:
    params = load_params()
    total = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for source, images in params.demo.model_dump().items():
            root = Path(folder) / source
            root.mkdir()
            started = time.perf_counter()
            draw_source(source, root, images, params.seed)
            seconds = time.perf_counter() - started
            total += seconds
            size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
            print(f"{source}: {images} images and the planted faults in {seconds:.1f} s, {size / 1e6:.1f} MB")
            for name, count in count_images(source, root, params.task).items():
                print(f"  {name:32} {count:4}")
    print(f"all: {total:.1f} s")


def count_images(source: SourceName, root: Path, task: str) -> dict[str, int]:
    """Images by class of the task, and files and rows left out by reason."""
    counts = Counter()
    for item in READERS[source](root):
        if isinstance(item, Found):
            reading = read_label(TASKS[task], source, item.findings)
            counts[reading.label or reading.reason] += 1
        else:
            counts[item.reason] += 1
    return dict(counts.most_common())


if __name__ == "__main__":
    main()
