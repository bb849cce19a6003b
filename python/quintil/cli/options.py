"""A parser for the options of a run: --config files, and a suggestion for a name that is not known."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from quintil.continual.arguments import add_arguments, metric_help


class RunParser(argparse.ArgumentParser):
    """Takes the options of a run [CIL 6] and `--config FILE`; what stands on the command line wins over the file.

    Further options may be added; a file may name them too. Keys of a file are option names without the dashes, any
    alias. Unknown names, on the command line or in the file, end with status 2 and the nearest known name.
    """

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("usage", "%(prog)s [options]")
        super().__init__(
            epilog=metric_help(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )
        self.add_argument(
            "--config", metavar="FILE", help="options from a .yaml, .yml or .json file; the command line overrides them"
        )

    def add_run_arguments(self, *, several: Collection[str] = ()) -> RunParser:
        """Add all options of a run below those added so far; returns the parser.

        several: destinations of options that take one or more values here; given, each is a list.
        """
        add_arguments(self)
        for action in self._actions:
            if action.dest in several:
                action.nargs = "+"
        return self

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        first, unknown = self.parse_known_args(args)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._suggestion(unknown)}")
        if first.config is None:
            return first
        try:
            tokens = self._tokens(first.config)
        except (ImportError, OSError, TypeError, ValueError) as error:
            self.error(str(error))
        return self.parse_known_args([*tokens, *(sys.argv[1:] if args is None else args)])[0]

    def _suggestion(self, unknown: Sequence[str]) -> str:
        options = [text.split("=")[0] for text in unknown if text.startswith("-")]
        near = difflib.get_close_matches(options[0], self._option_string_actions, n=1) if options else []
        return f" (did you mean {near[0]}?)" if near else ""

    def _tokens(self, path: str) -> list[str]:
        """The content of a config file as command-line words; ValueError for an unknown key."""
        words = []
        names = {action.dest: action for action in self._actions}
        names |= {option.lstrip("-"): action for option, action in self._option_string_actions.items()}
        for key, value in read_config(path).items():
            action = names.get(key) or names.get(str(key).replace("-", "_"))
            if action is None or action.dest in ("config", "help"):
                known = [name for name in names if len(name) > 2]
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {near[0]}?" if near else "see --help"
                raise ValueError(f"config: expected known keys, got {key!r} ({hint} in {path})")
            words += _words(path, key, value, action)
        return words


def _words(path: str, key: str, value: Any, action: argparse.Action) -> list[str]:
    """One key as command-line words: nothing for null; a list as 1,2,3 unless the option takes several words."""
    option = max(action.option_strings, key=len)
    if value is None:
        return []
    if action.nargs == 0:  # a switch without a value
        if not isinstance(value, bool):
            raise TypeError(f"config: expected {key} to be true or false, got {value!r} (in {path})")
        return [option] if value else []
    if isinstance(value, bool):
        return [f"{option}={str(value).lower()}"]
    if isinstance(value, list):
        if not all(isinstance(item, (int, str)) and not isinstance(item, bool) for item in value):
            raise TypeError(f"config: expected {key} to be a list of integers or texts, got {value!r} (in {path})")
        texts = list(map(str, value))
        return [option, *texts] if action.nargs in ("+", "*") else [f"{option}={','.join(texts)}"]
    if not isinstance(value, (int, float, str)):
        raise TypeError(f"config: expected {key} to be a number, text, true, false or list, got {value!r} (in {path})")
    return [f"{option}={value}"]


def read_config(path: str | Path) -> Mapping[str, Any]:
    """The mapping in a .json, .yaml or .yml file.

    Raises FileNotFoundError, ImportError where a YAML file meets no PyYAML, ValueError for anything but one mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"config: expected the file {path} to exist, got nothing there")
    kind = path.suffix.lower()
    if kind not in (".json", ".yaml", ".yml"):
        raise ValueError(f"config: expected a .json, .yaml or .yml file, got {path.name!r}")
    text = path.read_text(encoding="utf-8")
    value = _json(path, text) if kind == ".json" else _yaml(path, text)
    if not isinstance(value, dict):
        raise ValueError(f"config: expected option names with values, got {type(value).__name__} (in {path})")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    constants = {"": None, "~": None, "null": None, "true": True, "false": False}
    return constants.get(value, value) if isinstance(value, str) else value


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"config: expected JSON, got {error} (in {path})") from None


def _yaml(path: Path, text: str) -> Any:
    """Values stay texts, as on the command line: YAML itself reads 01056 as 558, and yes as true."""
    try:
        import yaml
    except ImportError:
        raise ImportError(
            f"config: expected PyYAML to read {path.name}, got none (pip install 'quintil[yaml]', or use JSON)"
        ) from None
    try:
        return _plain(yaml.load(text, yaml.BaseLoader))
    except yaml.YAMLError as error:
        said = re.sub(r"\s+", " ", str(error))
        raise ValueError(f"config: expected YAML, got {said} (in {path})") from None
