"""``--config FILE``: options from a JSON or YAML file, a run's ``config.json`` among them."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.options import OPTIONS, flag_of

SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NOTHING = ("null", "~", "")


def words_of_config(path: str) -> list[str]:
    """Return the command line that the file ``path`` stands for.

    Its keys are the options' names, with ``-`` or ``_``; its values what stands after them, lists
    as ``a,b``, ``true`` and ``false`` for options without a value, and null for one not given.
    Of a ``config.json``, which a run leaves, they are the ``settings``.

    Raises:
        UserError: the file cannot be read, or a key is no option's.
    """
    content = read_config_file(path)
    if isinstance(content.get("settings"), Mapping):
        content = {name: value for name, value in content["settings"].items() if name != "torchrun"}
    words = []
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in OPTIONS:
            close = get_close_matches(name, OPTIONS, n=1)
            advice = f"did you mean {close[0]}?" if close else "--help lists the options"
            raise UserError(f"--config {path}: unknown key {key!r}: {advice}")
        words += _words_of(name, value, path)
    return words


def read_config_file(path: str) -> Mapping[str, Any]:
    """Return the content of a JSON or YAML file, by its ending.

    Raises:
        UserError: it cannot be read, or holds no names with values.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise UserError(f"--config {path}: cannot be read ({reason})") from error
    ending = Path(path).suffix
    if ending == ".json":
        content = _json_of(text, path)
    elif ending in (".yaml", ".yml"):
        content = _yaml_of(text, path)
    else:
        raise UserError(f"--config {path}: must end in .json, .yaml or .yml")
    if not isinstance(content, Mapping):
        raise UserError(f"--config {path}: must hold options' names and their values")
    return content


def _json_of(text: str, path: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"--config {path}: is no JSON ({error})") from error


def _yaml_of(text: str, path: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise UserError(
            f"--config {path}: needs the package yaml: pip install pyyaml, or write it as .json"
        ) from error
    try:
        # Everything as it is written: 1e-3 is no number to YAML, and "off" is no word.
        return yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise UserError(f"--config {path}: is no YAML ({error})") from error


def _words_of(name: str, value: Any, path: str) -> list[str]:
    """Return an option with its value in one word; none where it is not given."""
    if isinstance(value, Mapping):
        raise UserError(f"--config {path}: {name} must be a value, not names with values")
    text = text_of(value)
    if text in NOTHING:
        return []
    option, switched = OPTIONS[name], SWITCHES.get(text.lower())
    if option.switch:
        if switched is None:
            raise UserError(f"--config {path}: {name} must be true or false, not {text!r}")
        return [flag_of(name) if switched else flag_of(f"no_{name}")]
    if option.bare is not None and switched is not None:
        return [flag_of(name) if switched else flag_of(f"no_{name}")]
    return [f"{flag_of(name)}={text}"]


def text_of(value: Any) -> str:
    """Return an option's value as it is written on the command line.

    Example:
        >>> text_of((30, 60)), text_of(True), text_of(1e-4)
        ('30,60', 'true', '0.0001')
    """
    if isinstance(value, (list, tuple)):
        return ",".join(map(text_of, value))
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
