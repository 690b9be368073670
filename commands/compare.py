"""Finished runs side by side."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from commands import inputs
from data.decoded import Images
from report import comparison


def compare(workdirs: Sequence[str], output: str) -> None:
    """Writes compare.html, compare.md and compare.json about finished runs into `output`.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out.
    """

    def load_test(config: Mapping[str, Any]) -> Images:
        splits = inputs.read(ConfigDict(config))
        if splits.digest != config["data"]["digest"]:
            raise ValueError(
                f"the images of {config['data']['category']} in {config['data']['root']} have "
                "changed since the runs were trained: put them back, or train again"
            )
        return splits.test

    folders = [os.path.abspath(os.path.expanduser(workdir)) for workdir in workdirs]
    print(comparison.compare(folders, load_test, output))
    print(f"Page: {os.path.join(output, 'compare.html')}")
