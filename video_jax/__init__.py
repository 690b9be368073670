"""Autoencoders of what is seen and of what moves in a clip, trained on pseudo-anomalies.

Rai, Krishna, Hu, Drimbarean, McDonald, Smeaton, O'Connor, "Video Anomaly Detection via
Spatio-Temporal Pseudo-Anomaly Generation: A Unified Approach", CVPR workshops 2024,
arXiv 2311.16514; the networks from scratch after Astrid et al. 2021 (LNTRA, STEAL Net).
"""

from video_jax.method import build

__all__ = ["build"]
