"""DevNet on the encoder of a self-supervised run, which is trained on the good images first.

python main.py --config=configs/few_shot_encoder.py:bottle --config.data.root=DIR \
    --reuse=W --workdir=E

W is the workdir of a run of configs/ssae_small.py. Without `--reuse` that stage is trained here, so
that its weights are the project's own in any case, where the paper's are ImageNet's. What else the
command of that run set must be set here too, but for data.labelled.
"""

from ml_collections import ConfigDict

from configs import few_shot, ssae_small


def get_config(category: str = "bottle") -> ConfigDict:
    """configs/ssae_small.py, and then a block and a head on its frozen encoder."""
    config, joint = ssae_small.get_config(category), few_shot.get_config(category)
    config.name = "DevNet on an encoder"
    config.method, config.scorer, config.head = joint.method, joint.scorer, joint.head
    config.score = joint.score
    config.data.labelled = joint.data.labelled
    config.trunk = joint.trunk
    config.trunk.update(fold=1, features=(64,), blocks=2)
    config.labelled_training = joint.training
    config.labelled_training.corruption = joint.corruption
    del config.labelled_training.corruption.textures  # those of the first stage serve both
    del config.tuning
    if category == "demo":
        config.training.num_steps = 200
        config.labelled_training.num_steps = 200
    return config
