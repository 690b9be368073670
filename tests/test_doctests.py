"""The examples in docstrings say what the functions do."""

import doctest

import pytest

from engine import residuals
from evaluation import metrics, threshold


@pytest.mark.parametrize(
    ("module", "least"),
    [(residuals, 4), (metrics, 1), (threshold, 4)],
    ids=["residuals", "metrics", "threshold"],
)
def test_examples(module, least):
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried >= least
