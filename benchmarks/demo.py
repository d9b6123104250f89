"""How long the demo takes to draw, and what it holds: `python -m benchmarks.demo`."""

import tempfile
import time
from collections import Counter
from pathlib import Path

from cxr.dataset.labels import read_label, vocabulary_of
from cxr.demo import draw_source
from cxr.params import Params, load_params
from cxr.raw.archives import Tree
from cxr.sources import READERS, Found
from cxr.tasks import TASKS


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
            for name, count in count_images(source, root, params).items():
                print(f"  {name:32} {count:4}")
    print(f"all: {total:.1f} s")


def count_images(source: str, root: Path, params: Params) -> dict[str, int]:
    """Images by class of the task, and files and rows left out by reason."""
    section = params.sources[source]
    words = vocabulary_of(section, params.assemble.pneumonia_findings)
    counts = Counter()
    for item in READERS[section.reader](Tree(root), section):
        if isinstance(item, Found):
            reading = read_label(TASKS[params.task], words, item.findings)
            counts[reading.label or reading.reason] += 1
        else:
            counts[item.reason] += 1
    return dict(counts.most_common())


if __name__ == "__main__":
    main()
