"""The localising restorer of configs/restorer.py in PyTorch, as carefully written as ours.

As `ae_jax.head.Restorer` has it: SDC-CCM on folded pixels, and a head. Images are float32
[B, C, H, W] in [-1, 1].
"""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import pytorch

Step = pytorch.Step
_DILATIONS = (1, 2, 4, 8, 16, 32)


def _block(a, b, **options):
    """A 3x3 convolution with batch normalisation and ReLU."""
    convolution = nn.Conv2d(a, b, 3, **{"padding": 1, **options}, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(b), nn.ReLU())


def _up(a, b):
    layer = nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(b), nn.ReLU())


class ConvexCombination(nn.Module):
    """ae_jax.dilated.ConvexCombination."""

    def __init__(self, features):
        super().__init__()
        self.first = _block(3 * features, features)
        self.second = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1, bias=False), nn.BatchNorm2d(features)
        )

    def forward(self, skip, below):
        both = torch.cat([skip, below, (skip - below).pow(2)], 1)
        beta = torch.sigmoid(self.second(self.first(both)))
        return beta * skip + (1 - beta) * below


class DilatedBlock(nn.Module):
    """ae_jax.dilated.DilatedBlock."""

    def __init__(self, features, branch):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(features, branch, 3, padding=d, dilation=d, bias=False) for d in _DILATIONS
        )
        wide = branch * len(_DILATIONS)
        self.norm = nn.BatchNorm2d(wide)
        self.last = _block(wide, wide)

    def forward(self, x):
        return self.last(F.relu(self.norm(torch.cat([conv(x) for conv in self.branches], 1))))


class DilatedAutoencoder(nn.Module):
    """ae_jax.dilated.DilatedAutoencoder, one convolution a level."""

    def __init__(self, features=(24, 48, 64), fold=4, blocks=2, branch=16):
        super().__init__()
        self.fold = fold
        widths = (3 * fold**2, *features)
        pairs = list(zip(widths, features, strict=False))
        self.down = nn.ModuleList(_block(a, b) for a, b in pairs)
        wide = branch * len(_DILATIONS)
        seen = (features[-1], *(wide,) * (blocks - 1))
        self.blocks = nn.Sequential(*(DilatedBlock(width, branch) for width in seen))
        inputs = (wide, *features[:0:-1])
        mirrored = list(zip(inputs, reversed(features), strict=True))
        self.up = nn.ModuleList(_up(a, b) for a, b in mirrored)
        self.combine = nn.ModuleList(ConvexCombination(b) for _, b in mirrored)
        self.after = nn.ModuleList(_block(b, b) for _, b in mirrored)
        self.last = nn.Conv2d(features[0], 3 * fold**2, 1)

    def forward(self, images):
        x, levels = F.pixel_unshuffle(images, self.fold), []
        for level in self.down:
            x = level(x)
            levels.append(x)
            x = F.max_pool2d(x, 2)
        x = self.blocks(x)
        for up, combine, after in zip(self.up, self.combine, self.after, strict=True):
            x = after(combine(levels.pop(), up(x)))
        return F.pixel_shuffle(torch.tanh(self.last(x) / 2), self.fold)


class Residual(nn.Module):
    """A block of two convolutions around which the input passes."""

    def __init__(self, features, dilation):
        super().__init__()
        options = {"padding": dilation, "dilation": dilation}
        self.first = _block(features, features, **options)
        self.second = _block(features, features, **options)[:2]

    def forward(self, x):
        return F.relu(x + self.second(self.first(x)))


class Restorer(nn.Module):
    """ae_jax.head.Restorer with ae_jax.head.Head."""

    def __init__(self, fold=4, fine=32, coarse=64):
        super().__init__()
        self.autoencoder, self.fold = DilatedAutoencoder(), fold
        self.first = nn.Sequential(
            nn.Conv2d(12 * fold**2, fine, 1, bias=False), nn.BatchNorm2d(fine), nn.ReLU()
        )
        self.fine, self.down = Residual(fine, 1), _block(fine, coarse)
        self.coarse = nn.Sequential(Residual(coarse, 1), Residual(coarse, 2))
        self.up, self.join = _up(coarse, fine), _block(2 * fine, fine)
        self.last = nn.Conv2d(fine, fold**2, 3, padding=1)

    def forward(self, images):
        restored = self.autoencoder(images)
        difference = images - restored
        seen = torch.cat([images, restored, difference, difference.abs()], 1)
        skip = self.fine(self.first(F.pixel_unshuffle(seen, self.fold)))
        x = self.up(self.coarse(self.down(F.max_pool2d(skip, 2))))
        x = self.last(self.join(torch.cat([skip, x], 1)))
        return restored, F.pixel_shuffle(x, self.fold)[:, 0]


def steps(images, channels_last: bool, compiled: bool) -> dict[str, Step]:
    """The restorer's step on one corrupted batch, whose upper left quarter counts as replaced."""
    images, (network,) = pytorch.placed(images, [Restorer()], channels_last)
    optimizer = pytorch.adam(network, learning_rate=1e-3, betas=(0.9, 0.999))
    run = torch.compile(network) if compiled else network
    inside = torch.zeros_like(images[:, 0])
    height, width = inside.shape[1:]
    inside[:, : height // 2, : width // 2] = 1
    corrupted, count = torch.where(inside[:, None] > 0, -images, images), inside.sum((1, 2))

    def step():
        restored, logits = run(corrupted)
        residual = (restored - images).pow(2).mean(1)
        replaced = (residual * inside).sum((1, 2)) / count
        clean = (residual * (1 - inside)).sum((1, 2)) / (inside[0].numel() - count)
        head = F.binary_cross_entropy_with_logits(logits, inside)
        pytorch.descend(optimizer, (0.5 * (clean + replaced)).mean() + 0.1 * head)

    return {"restorer": step}


def num_parameters() -> dict[str, int]:
    """To be held against ours."""
    return {"autoencoder": sum(p.numel() for p in Restorer().parameters())}
