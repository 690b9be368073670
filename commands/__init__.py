"""What main.py's modes do: the place where the images, a method and the engine meet.

Each command takes folders, and a config where it trains or judges, and raises ValueError, OSError
or FloatingPointError with one line that says what is wrong and the way out.
"""

from commands.check import check
from commands.compare import compare
from commands.evaluate import evaluate
from commands.export import export
from commands.inputs import located
from commands.predict import predict, restore_scorer
from commands.recalibrate import recalibrate
from commands.serve import serve
from commands.settings import unknown_field
from commands.train import train
from commands.tune import tune

__all__ = [
    "check",
    "compare",
    "evaluate",
    "export",
    "located",
    "predict",
    "recalibrate",
    "restore_scorer",
    "serve",
    "train",
    "tune",
    "unknown_field",
]
