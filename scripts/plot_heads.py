"""Plot the attention of every head of one sentence side by side.

    python scripts/plot_heads.py RUN SENTENCE OUTPUT.png [--layer N]

RUN is a run directory or a report folder with alignments.npz; sentences and layers are counted from 1. Each head is
drawn by `nmt.evaluation.report.heatmap`, with its score as the title.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import yaml

from nmt.cli.configs import Config
from nmt.evaluation.report import heatmap
from nmt.runtime.errors import report_errors
from nmt.runtime.files import atomic_write


def draw(report: Path, number: int, layer: int, output: Path) -> None:
    """Write the picture; raise ValueError when there is no such sentence or layer."""
    config = Config.from_dict(yaml.safe_load((report / "config.yaml").read_text(encoding="utf-8")))
    with np.load(report / "alignments.npz", allow_pickle=False) as stored:
        if f"{number - 1}.weights" not in stored:
            raise ValueError(f"{report / 'alignments.npz'}: has no sentence {number}")
        weights, source, target = (stored[f"{number - 1}.{name}"] for name in ("weights", "source", "target"))
    if not 1 <= layer <= len(weights):
        raise ValueError(f"--layer {layer}: the model has {len(weights)} layers with attention to the source")
    scores = config.model.attention.for_layer(layer - 1).scores
    import matplotlib.image

    with tempfile.TemporaryDirectory() as folder:
        pictures = []
        for head, (matrix, score) in enumerate(zip(weights[layer - 1].astype(float), scores, strict=True), start=1):
            file = Path(folder) / f"{head}.png"
            heatmap.save_heatmap(file, matrix, source.tolist(), target.tolist(), title=f"head {head}: {score}")
            pictures.append(matplotlib.image.imread(file)[..., :3])
    height = max(len(picture) for picture in pictures)
    padded = [np.pad(image, ((height - len(image), 0), (0, 0), (0, 0)), constant_values=1.0) for image in pictures]
    with atomic_write(output) as temporary:
        matplotlib.image.imsave(temporary, np.concatenate(padded, axis=1), format="png")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("sentence", type=int)
    parser.add_argument("output", type=Path)
    parser.add_argument("--layer", type=int, default=1)
    options = parser.parse_args()
    report = options.run / "report" if (options.run / "report").is_dir() else options.run
    with report_errors():
        draw(report, options.sentence, options.layer, options.output)


if __name__ == "__main__":
    main()
