"""The examples in docstrings say what the functions do."""

import doctest

import pytest

from diffusion_jax import schedule
from engine import nfa, residuals
from evaluation import drift, metrics, quality, threshold
from storage import files


@pytest.mark.parametrize(
    ("module", "least"),
    [
        *((nfa, 1), (residuals, 4), (metrics, 1), (threshold, 4), (files, 1), (schedule, 1)),
        *((drift, 1), (quality, 1)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_examples(module, least):
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried >= least
