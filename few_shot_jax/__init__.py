"""Networks that learn from a few labelled defective images beside many good ones.

Pang, Ding, Shen, van den Hengel, "Explainable Deep Few-shot Anomaly Detection with Deviation
Networks", 2021, arXiv 2108.00462; and an interpretation of Cholopoulou, Iakovidis, "MeLIAD", 2024,
arXiv 2409.13602.
"""

from few_shot_jax.method import build

__all__ = ["build"]
