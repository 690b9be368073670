"""What `fn` in a config may name: a config may come with a stranger's workdir, and is data.

Without this, `fn: "os:system"` in a config.json would run a command when the workdir is evaluated.
"""

import functools
import importlib.util
import inspect
import itertools
import operator
import pkgutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.outputs import CONFIG_FILE

_LIBRARY = "optax"  # none of its functions touches a file; JAX and Flax have some that do
# Of this program, the methods alone have what a config may name: the rest writes files.
_METHODS = ("fanogan_jax", "ae_jax", "contrario_jax", "few_shot_jax", "diffusion_jax", "video_jax")
_CHECKOUT = Path(__file__).resolve().parents[1]
_STANDARD = Path(sysconfig.get_path("stdlib"))
_INSTALLED = {"site-packages", "dist-packages"}


def resolve(name: str) -> Any:
    """What 'module:attribute' names: of the methods, of Optax, or of a module of the user's own.

    A module of the user's own is a file, or lies in a package with an `__init__.py`, outside this
    checkout, the standard library, site-packages and workdirs. No other module is imported.

    Raises:
      ValueError: `name` names nothing, or something else.
    """
    try:
        allowed = _may_be_named(name.partition(":")[0])
        target = pkgutil.resolve_name(name) if allowed else None
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        hint = _way_to(name.partition(":")[0]) if isinstance(error, ModuleNotFoundError) else ""
        raise ValueError(
            f"fn={name!r} names nothing ('module:attribute'): {error}{hint}"
        ) from error
    origin = target
    while isinstance(origin, functools.partial):
        origin = origin.func
    # A module holds also what it imports, such as `os`.
    if callable(target):
        allowed = _may_be_named(getattr(origin, "__module__", None) or "builtins")
    if not allowed:
        raise ValueError(
            f"fn={name!r} is not for a config to name, which may do so with functions and classes "
            "of the methods, of Optax and of modules of your own, outside this checkout, "
            "site-packages and workdirs: name a function of your own that calls it, in a file of a "
            "folder on PYTHONPATH"
        )
    return target


def _way_to(module: str) -> str:
    """How a module of the user's own comes to be found; what lies about is not imported unasked."""
    top = module.partition(".")[0]
    if top in (*_METHODS, _LIBRARY):
        return ""
    here = [file for file in (Path(f"{top}.py"), Path(top)) if file.exists()]
    folder = Path.cwd() if here else "FOLDER"
    return f"; its folder must be on Python's path: export PYTHONPATH={folder}"


def _may_be_named(module: str) -> bool:
    """Told without importing it; true where there is none."""
    top, *below = module.split(".")
    if top == _LIBRARY or top in _METHODS:
        return True
    if top in sys.stdlib_module_names:
        return False
    spec = importlib.util.find_spec(top)
    if spec is None:
        return True
    if spec.origin is None:  # a folder without __init__.py, such as one that holds workdirs
        return False
    place = Path(spec.origin)
    if _INSTALLED & set(place.parts) or place.is_relative_to(_STANDARD):
        return False
    if place.resolve().is_relative_to(_CHECKOUT):
        return False
    # Whoever made a workdir may have put modules into it.
    folders = [
        folder
        for start in spec.submodule_search_locations or ()
        for folder in itertools.accumulate([Path(start), *below], operator.truediv)
    ]
    return not any((folder / CONFIG_FILE).exists() for folder in folders)


def make(section: Mapping[str, Any], *args: Any) -> Any:
    """Calls what `section['fn']` names with `args` and the section's other fields.

    Lists become tuples, so that a section read back from JSON is the section that was written.

    Raises:
      ValueError: `fn` names nothing, or what is not for a config to name (engine/make.py), or
        does not take these fields.
    """
    fields = dict(section)
    name = fields.pop("fn")
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    function = resolve(name)
    try:
        inspect.signature(function).bind(*args, **fields)
    except TypeError as error:
        raise ValueError(f"fn={name!r} with {fields}: {error}") from error
    return function(*args, **fields)


def corruption_of(section: Mapping[str, Any], textures: Any) -> Any:
    """What a section `corruption` names, with the user's textures, uint8 [T, S, S, 3], or None.

    Its field `textures` is the folder that they come from, which commands/ read.

    Raises:
      ValueError: as `make`.
    """
    return make({name: value for name, value in section.items() if name != "textures"}, textures)
