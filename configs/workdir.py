"""The config that a workdir holds, so that some field of it can be changed.

python main.py --mode=evaluate --workdir=W --config.threshold.false_alarm_rate=0.01

main.py takes this file, with the workdir as its argument, where only fields are given and no
`--config`.
"""

import json
from pathlib import Path

from ml_collections import ConfigDict


def get_config(workdir: str) -> ConfigDict:
    """What `workdir`/config.json says.

    Raises:
      OSError, ValueError: there is no such file, or it is damaged.
    """
    path = Path(workdir).expanduser() / "config.json"
    try:
        return ConfigDict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist: train into this workdir first") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): choose another workdir") from error
