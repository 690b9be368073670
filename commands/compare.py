"""Finished runs side by side."""

import os
from collections.abc import Sequence

from ml_collections import ConfigDict

from commands import inputs
from commands.runs import whole_path
from data.decoded import Images
from data.windows import Windows
from engine.sources import changes
from evaluation.results import Run
from report import comparison


def compare(workdirs: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> None:
    """Writes compare.html, compare.md and compare.json about finished runs into `output`.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out.
    """

    def load_test(run: Run) -> Images:
        splits = inputs.read(ConfigDict(run.config), run.facts)
        if what := changes(run.sources.test, inputs.sources_of(splits).test):
            raise ValueError(
                f"test images of {run.workdir} have changed since it was evaluated ({what}): "
                f"python main.py --mode=evaluate --workdir={run.workdir}, and the same for the "
                "other runs, or put them back"
            )
        images = splits.test.images
        pictures = images.shown() if isinstance(images, Windows) else images
        return splits.test._replace(images=pictures)

    folders, output = [whole_path(workdir) for workdir in workdirs], whole_path(output)
    print(comparison.write_comparison(folders, load_test, output))
    print(f"Page: {os.path.join(output, comparison.COMPARISON_PAGE)}")
