"""What the fields of a config may hold: each has a rule, and what breaks it is told in one line."""

import copy
import importlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from commands import inputs
from commands.settings import require_legal, rule_of, unknown_field
from engine.make import make

FOLDER = Path(__file__).parents[2] / "configs"
NO_CONFIGS = {"__init__", "base", "augmentation", "workdir"}
MODULES = {
    path.stem: importlib.import_module(f"configs.{path.stem}")
    for path in sorted(FOLDER.glob("*.py"))
    if path.stem not in NO_CONFIGS
}
CONFIGS = {name: module.get_config("mine").to_dict() for name, module in MODULES.items()}


def leaves(section, path=()):
    for name, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


def with_value(config, path, value):
    changed = copy.deepcopy(config)
    section = changed
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    return ConfigDict(changed)


FIELDS = [(name, path) for name, config in CONFIGS.items() for path in leaves(config)]


@pytest.mark.parametrize("category", ["mine", "demo", "grid"])
@pytest.mark.parametrize("name", MODULES)
def test_each_field_has_a_rule_and_keeps_it(name, category):
    config = MODULES[name].get_config(category)
    assert not [path for path in leaves(config.to_dict()) if rule_of(".".join(path)) is None]
    require_legal(config)


WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 10**12, -(10**12), 2**64, 0.5, -0.0]),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=3)), max_size=3),
    st.lists(st.integers(), max_size=3).map(tuple),
)


@settings(max_examples=800, deadline=None, derandomize=True)
@given(field=st.sampled_from(FIELDS), value=WRONG)
def test_any_value_of_any_field_is_taken_or_told_in_one_line(field, value, tmp_path_factory):
    name, path = field
    config = with_value(CONFIGS[name], path, value)
    workdir = Path(tmp_path_factory.getbasetemp()) / "nothing"
    try:
        inputs.located(config, str(workdir))
    except ValueError as error:
        message = str(error)
        assert message.count("\n") == 0 and ".".join(path) in message
        assert " is not " in message
    assert not workdir.exists()


# Those that decide on what is built, with values that their rules allow.
BUILT = [
    field
    for field in FIELDS
    if field[0]
    in (
        "fanogan",
        "fanogan_resnet",
        "anogan",
        "ama",
        "ae",
        "ae_ssim",
        "ssae_small",
        "restorer",
        "contrario",
        "few_shot",
        "meliad",
        "glad_small",
    )
    and rule_of(".".join(field[1])).text.startswith(
        ("a whole", "a number", "1 to 64", "2 values", "two values")
    )
]
SMALL = st.one_of(
    st.integers(0, 70),
    st.floats(0, 1),
    st.lists(st.integers(1, 70), min_size=1, max_size=6).map(tuple),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(field=st.sampled_from(BUILT), value=SMALL)
def test_what_is_legal_builds_a_method_or_says_why_not(field, value):
    """Nothing is compiled, and no parameter made."""
    name, path = field
    config, said = with_value(CONFIGS[name], path, value), []
    try:
        require_legal(config)
        make(config.method, config, 100)
    except ValueError as error:
        said.append(str(error))
    assert all("\n" not in line for line in said)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("seed",), -1, "seed=-1 is not a whole number from 0 to 4294967295"),
        (("seed",), True, "seed=True is not a whole number"),
        (("gan", "num_steps"), -5, "gan.num_steps=-5 is not a whole number from 0"),
        (
            ("data", "calibration"),
            float("nan"),
            r"data.calibration=nan is not a number in \[0, 1\)",
        ),
        (
            ("data", "white_level"),
            254,
            "data.white_level=254 is not one of 0, or a whole number from 255 to 65535",
        ),
        (("data", "max_pixels"), 63, "data.max_pixels=63 is not a whole number from 64"),
        (
            ("every", "log"),
            -1,
            "every.log=-1 is not a whole number from 1 to 1000000000, or 0: off",
        ),
        (("generator", "features"), (1, "a"), "each a whole number from 1"),
        (("data", "flop"), 1, "data.flop: there is no such field: did you mean flip"),
        (("gan", "num_stepz"), 1, "gan.num_stepz: there is no such field: did you mean num_steps"),
        (("gan", "critic_optimizer", "learning_rate"), "x", "learning_rate='x' is not a number"),
        (("gann",), {"n_critic": 1}, "gann: no method reads such a section: did you mean gan"),
        (("note",), "mine", "note: no method reads such a section"),
        pytest.param(
            *(("latent",), 10**5000, "latent=a number of more digits .* is not a whole number"),
            id="digits",
        ),
        (("data", "crop"), 65, "data.crop=65 does not fit images of 64x64 px"),
    ],
)
def test_messages_name_field_value_and_range(path, value, said):
    with pytest.raises(ValueError, match=said):
        require_legal(with_value(CONFIGS["fanogan"], path, value))


def test_all_that_is_wrong_is_said_at_once():
    config = with_value(CONFIGS["fanogan"], ("seed",), -1)
    config.latent = 0
    with pytest.raises(ValueError, match="latent=0 .*; seed=-1 "):
        require_legal(config)


@pytest.mark.parametrize("name", ["fanogan", "restorer"])
def test_what_is_missing_or_no_section_is_named(name):
    for path in (("data",), ("every",), ("method",), ("data", "image_size"), ("seed",)):
        config = copy.deepcopy(CONFIGS[name])
        section = config[path[0]] if len(path) > 1 else config
        del section[path[-1]]
        with pytest.raises(ValueError, match=f"^{path[-1]} is|^{'.'.join(path)} is"):
            require_legal(ConfigDict(config))
    for value in (5, "x", [1]):
        with pytest.raises(ValueError, match="^data is no section"):
            require_legal(with_value(CONFIGS[name], ("data",), value))


@pytest.mark.parametrize("path", [("gan",), ("gan", "schedule"), ("generator",), ("latent",)])
def test_what_a_method_lacks_is_told_in_one_line(path):
    config = copy.deepcopy(CONFIGS["fanogan"])
    section = config[path[0]] if len(path) > 1 else config
    del section[path[-1]]
    with pytest.raises(ValueError, match=f"fanogan_jax:build cannot be built .*{path[-1]}"):
        inputs.require_method(ConfigDict(config))
    other = ConfigDict({**CONFIGS["ae"], "method": {"fn": "fanogan_jax:build"}})
    with pytest.raises(ValueError, match="begin with one of the files in configs/"):
        inputs.require_method(other)
    schedule = with_value(CONFIGS["ssae_small"], ("training", "schedule", "peak"), 1.0)
    with pytest.raises(ValueError, match="TypeError"):
        inputs.require_method(schedule)


def test_functions_of_the_users_own_have_fields_of_their_own():
    loss = {"fn": "my_loss:izi", "noise": -3, "feature": "x"}
    require_legal(with_value(CONFIGS["ssae_small"], ("training", "loss"), loss))
    ours = {**loss, "fn": "ae_jax.losses:self_supervised"}
    with pytest.raises(ValueError, match="training.loss.noise=-3"):
        require_legal(with_value(CONFIGS["ssae_small"], ("training", "loss"), ours))
    config = ConfigDict(CONFIGS["fanogan"])
    config.student = {"features": 64, "side": "left"}
    with pytest.raises(
        ValueError, match="student: no method reads such a section.*student.features=64"
    ):
        require_legal(config)
    config.method.fn = "my_method:build"
    require_legal(config)
    config.data.image_size = 0
    with pytest.raises(ValueError, match="data.image_size=0"):
        require_legal(config)


def test_unknown_fields_are_told_with_what_may_be_meant():
    config = ConfigDict(CONFIGS["fanogan"])
    assert unknown_field(config, "gan.n_critic") == ""
    assert unknown_field(config, "gan.ncritic").endswith("did you mean gan.n_critic?")
    assert unknown_field(config, "n_critic").endswith("did you mean gan.n_critic?")
    assert unknown_field(config, "seed.x") == "seed.x: there is no such field: did you mean seed?"
    assert unknown_field(config, "zzzz") == "zzzz: there is no such field"
