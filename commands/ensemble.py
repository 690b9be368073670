"""Two finished runs, evaluated as one."""

import os
from typing import Any, NamedTuple

from ml_collections import ConfigDict, FrozenConfigDict

from commands.runs import RunNetworks, require_finished, restore_networks, whole_path
from data import pipeline
from engine import parallel
from engine.workdir import Facts, claim, read_config, read_facts
from evaluation.ensemble import Standard, ensemble_of, standard_of, standards_of
from evaluation.scoring import scorer_of
from evaluation.threshold import read_network
from storage.outputs import CHECKPOINTS

_BATCH = 32
_NAMES = ("unsupervised", "few_shot")


class Member(NamedTuple):
    """One of the two runs."""

    workdir: str
    config: FrozenConfigDict
    facts: Facts
    networks: RunNetworks


def members_of(config: ConfigDict) -> list[Member]:
    """The two runs that the config names.

    Raises:
      ValueError, OSError: one is not named, not there, not trained to its end or itself an
        ensemble; or they have learnt from other good images, or see images of other sizes.
    """
    members = []
    for name in _NAMES:
        if not config.members.get(name, ""):
            raise ValueError(f"members.{name} is empty: name a finished workdir")
        workdir = whole_path(config.members[name])
        theirs, facts = FrozenConfigDict(read_config(workdir)), read_facts(workdir)
        if "members" in theirs:
            raise ValueError(f"members.{name}={workdir} is itself an ensemble: name a trained run")
        networks = restore_networks(theirs, facts, workdir)
        require_finished(networks.method, networks.origin["step"], workdir)
        members.append(Member(workdir, theirs, facts, networks))
    one, other = members
    if one.facts.digest != other.facts.digest:
        raise ValueError(
            f"{one.workdir} and {other.workdir} were trained on other good images, so that what "
            "one holds out the other may know: train both with the same images, seed and "
            "data.calibration"
        )
    sizes = [each.config.data.image_size for each in members]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{one.workdir} sees {sizes[0]} px and {other.workdir} {sizes[1]} px: train both with "
            "one data.image_size"
        )
    return members


def settings_of(config: ConfigDict, members: list[Member]) -> FrozenConfigDict:
    """The ensemble's config: images and seed of the few-shot run, judgement of its own."""
    settings = ConfigDict(config.to_dict())
    few_shot = members[1].config
    settings.seed = few_shot.seed
    settings.data = ConfigDict(few_shot.data.to_dict())
    settings.members = {name: each.workdir for name, each in zip(_NAMES, members, strict=True)}
    return FrozenConfigDict(settings)


def measured(members: list[Member], splits: pipeline.Splits) -> list[Standard]:
    """What the held-out good images score, by each."""
    return [
        standard_of(
            scorer_of(each.networks.method, each.networks.variables),
            pipeline.eval_batches(splits.calibration.images, _BATCH),
            _BATCH,
        )
        for each in members
    ]


def joined(members: list[Member], standards: list[Standard]) -> RunNetworks:
    """The networks of both, with the larger score of the two."""
    method = ensemble_of([each.networks.method.score for each in members], standards)
    variables = {str(index): each.networks.variables for index, each in enumerate(members)}
    origin: dict[str, Any] = {
        "members": {
            name: {"workdir": each.workdir, **each.networks.origin}
            for name, each in zip(_NAMES, members, strict=True)
        },
        "standards": [standard._asdict() for standard in standards],
        "score": {},
    }
    return RunNetworks(method, variables, origin)


def bind(config: FrozenConfigDict, facts: Facts, workdir: str) -> None:
    """Writes the ensemble's config and facts into its workdir.

    Raises:
      ValueError: a run was trained there.
    """
    if os.path.isdir(os.path.join(workdir, CHECKPOINTS)):
        raise ValueError(f"{workdir} holds a trained run: choose another workdir for an ensemble")
    claim(workdir, config.to_dict(), facts, free=(), main=parallel.is_main())


def restore_ensemble(config: ConfigDict, workdir: str) -> RunNetworks:
    """The networks of an evaluated ensemble.

    Raises:
      ValueError, OSError: as `members_of`; or it has not been evaluated.
    """
    network = read_network(workdir)
    try:
        standards = standards_of(network["standards"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{workdir} is damaged ({error!r}): run python main.py --mode=evaluate "
            f"--workdir={workdir} again"
        ) from error
    return joined(members_of(config), standards)
