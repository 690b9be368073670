"""What main.py's modes do: the place where the images, a method and the engine meet.

Each command takes folders, and a config where it trains, and raises ValueError, OSError or
FloatingPointError with one line that says what is wrong and the way out.
"""

from commands.check import check
from commands.compare import compare
from commands.predict import export, predict, restore_scorer
from commands.train import run
from commands.tune import tune

__all__ = ["check", "compare", "export", "predict", "restore_scorer", "run", "tune"]
