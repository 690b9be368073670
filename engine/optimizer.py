"""The optimiser of the methods whose learning rate rises and falls."""

from typing import Any

import optax

from engine.make import make


def scheduled_optimizer(section: Any, num_steps: int) -> optax.GradientTransformation:
    """Clipped gradients, and a cosine schedule with warm-up over all steps."""
    if not 0 <= section.schedule.warmup_steps < num_steps:
        raise ValueError(
            f"training.schedule.warmup_steps {section.schedule.warmup_steps} must be less than the "
            f"{num_steps} steps of training"
        )
    schedule = optax.warmup_cosine_decay_schedule(**section.schedule, decay_steps=num_steps)
    return optax.chain(optax.clip_by_global_norm(section.clip), make(section.optimizer, schedule))
