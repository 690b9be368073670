"""What we compare with: the project's networks and steps in PyTorch, as carefully written as ours.

Each step is a function without arguments. Gradients are tracked only where a step needs them,
generation for the critic runs under `no_grad`, networks that rest do not collect gradients, and the
gradients are dropped and not zeroed. Images are float32 [B, C, H, W] in [-1, 1].
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

Step = Callable[[], None]


class Generator(nn.Module):
    """The original generator: latents [B, 100] -> images at 64 px."""

    def __init__(self, latent=100, features=(128, 128, 64), side=16):
        super().__init__()
        self.shape = (features[0], side, side)
        self.dense = nn.Linear(latent, features[0] * side * side)
        self.norm = nn.BatchNorm2d(features[0])
        pairs = list(itertools.pairwise(features))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        self.last = nn.Conv2d(features[-1], 3, 3, padding=1)

    def forward(self, latents):
        x = self.dense(latents).view(-1, *self.shape)
        if self.last.weight.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.norm(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(F.interpolate(x, scale_factor=2))), 0.2)
        return torch.tanh(self.last(x))


class Trunk(nn.Module):
    """The original strided convolutions, flattened; `norm(channels)` makes a normalisation."""

    def __init__(self, norm, features=(16, 32, 64, 128)):
        super().__init__()
        channels = (3, *features)
        pairs = list(zip(channels, features, strict=False))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.norms = nn.ModuleList([nn.Identity(), *(norm(b) for b in features[1:])])

    def forward(self, images):
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(F.leaky_relu(conv(x), 0.2))
        return x.flatten(1)


class Critic(nn.Module):
    """Images -> (score [B], features [B, 2048])."""

    def __init__(self):
        super().__init__()
        self.trunk = Trunk(lambda channels: nn.GroupNorm(1, channels))
        self.dense = nn.Linear(2048, 1)

    def forward(self, images):
        features = self.trunk(images)
        return self.dense(features)[:, 0], features


class Encoder(nn.Module):
    """Images -> latents [B, 100]."""

    def __init__(self):
        super().__init__()
        self.trunk = Trunk(nn.BatchNorm2d)
        self.dense = nn.Linear(2048, 100)

    def forward(self, images):
        return torch.tanh(self.dense(self.trunk(images)))


class Autoencoder(nn.Module):
    """ae_jax.models.ConvolutionalAutoencoder."""

    def __init__(self, latent=1024, features=(32, 64, 128, 256, 512, 512), side=4):
        super().__init__()

        def block(layer, a, b):
            conv = layer(a, b, 4, stride=2, padding=1, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(b), nn.LeakyReLU(0.2))

        pairs = list(zip((3, *features), features, strict=False))
        self.down = nn.Sequential(*(block(nn.Conv2d, a, b) for a, b in pairs))
        self.encode = nn.Linear(features[-1] * side * side, latent)
        self.decode = nn.Linear(latent, features[-1] * side * side, bias=False)
        self.shape = (features[-1], side, side)
        self.norm = nn.Sequential(nn.BatchNorm2d(features[-1]), nn.LeakyReLU(0.2))
        mirrored = [(b, a) for a, b in reversed(pairs[1:])]
        self.up = nn.Sequential(*(block(nn.ConvTranspose2d, a, b) for a, b in mirrored))
        self.last = nn.ConvTranspose2d(features[0], 3, 4, stride=2, padding=1)

    def forward(self, images):
        x = self.down(images)
        x = self.decode(self.encode(x.flatten(1))).view(-1, *self.shape)
        if self.last.weight.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        return torch.tanh(self.last(self.up(self.norm(x))))


def adam(network, learning_rate=2e-4, betas=(0.5, 0.999)):
    """Adam of all parameters."""
    return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=betas)


def descend(optimizer, loss):
    """One step down."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def fanogan_steps(images, channels_last: bool, compiled: bool) -> dict[str, Step]:
    """critic, generator, encoder and scoring of the original f-AnoGAN on one batch of images."""
    networks = [Generator(), Critic(), Encoder()]
    images, networks = placed(images, networks, channels_last)
    generator, critic, encoder = networks
    optimizers = [adam(network) for network in networks]
    # Compiled modules cannot be differentiated twice, which the penalty does.
    if compiled:
        run_generator, run_critic, run_encoder = map(torch.compile, networks)
    else:
        run_generator, run_critic, run_encoder = networks
    batch, device = len(images), images.device

    def latents():
        return torch.randn(batch, 100, device=device)

    def critic_step():
        learn(critic)
        with torch.no_grad():
            fakes = run_generator(latents())
        mixing = torch.rand(batch, 1, 1, 1, device=device)
        between = (mixing * images + (1 - mixing) * fakes).requires_grad_()
        scores = run_critic(between)[0].sum()
        (slopes,) = torch.autograd.grad(scores, between, create_graph=True)
        penalties = ((slopes.pow(2).sum((1, 2, 3)) + 1e-12).sqrt() - 1).pow(2)
        wasserstein = run_critic(images)[0].mean() - run_critic(fakes)[0].mean()
        descend(optimizers[1], 10 * penalties.mean() - wasserstein)

    def generator_step():
        learn(generator)
        descend(optimizers[0], -run_critic(run_generator(latents()))[0].mean())

    def residuals():
        made = run_generator(run_encoder(images))
        features = (run_critic(images)[1] - run_critic(made)[1]).pow(2).mean(1)
        return (images - made).pow(2).mean((1, 2, 3)), features, (images - made).abs().mean(1)

    def encoder_step():
        learn(encoder)
        generator.eval()
        image, features, _ = residuals()
        descend(optimizers[2], image.mean() + features.mean())
        generator.train()

    def score():
        for network in networks:
            network.eval()
        with torch.inference_mode():
            residuals()
        for network in networks:
            network.train()

    def learn(learner):
        for network in networks:
            network.requires_grad_(network is learner)

    return {
        "critic": critic_step,
        "generator": generator_step,
        "encoder": encoder_step,
        "scoring": score,
    }


def autoencoder_steps(images, channels_last: bool, compiled: bool) -> dict[str, Step]:
    """The autoencoder's step, mean squared error and Adam, on one batch of images."""
    images, (network,) = placed(images, [Autoencoder()], channels_last)
    optimizer = adam(network, learning_rate=1e-3, betas=(0.9, 0.999))
    run = torch.compile(network) if compiled else network
    return {"autoencoder": lambda: descend(optimizer, (run(images) - images).pow(2).mean())}


def placed(images, networks, channels_last: bool):
    """Images [B, H, W, C] and networks on the device, in one memory format."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    options = {"memory_format": torch.channels_last} if channels_last else {}
    images = images.to(device, **options)
    return images, [network.to(device, **options) for network in networks]


def num_parameters() -> dict[str, int]:
    """Of each network, to be held against ours."""
    made = {"generator": Generator, "critic": Critic, "encoder": Encoder}
    made["autoencoder"] = Autoencoder
    return {name: sum(p.numel() for p in make().parameters()) for name, make in made.items()}


def wait() -> None:
    """Until the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
