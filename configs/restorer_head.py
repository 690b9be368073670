"""A head for a finished, frozen run of configs/ssae_small.py: two stages in place of one.

python main.py --config=configs/restorer_head.py:bottle --config.data.root=DIR --reuse=W --workdir=H

W is the workdir of the run of configs/ssae_small.py. Without `--reuse` the first stage is trained
here. What else the command of that run set must be set here too.
"""

from ml_collections import ConfigDict

from configs import restorer, ssae_small


def get_config(category: str = "bottle") -> ConfigDict:
    """configs/ssae_small.py, and then 2,000 steps of the head of configs/restorer.py alone."""
    config, joint = ssae_small.get_config(category), restorer.get_config(category)
    config.name = "restorer, head alone"
    config.head, config.score, config.tuning = joint.head, joint.score, joint.tuning
    loss = joint.training.loss
    config.head_training = joint.training
    config.head_training.update(corruption=joint.corruption, num_steps=2000)
    del config.head_training.corruption.textures  # those of the first stage serve both
    config.head_training.loss = dict(
        fn="ae_jax.losses:head_alone", lighting=loss.lighting, graded=loss.graded
    )
    if category == "demo":
        config.head_training.num_steps = 200
    return config
