"""Options of a command that stand together in a struct, so that commands can share them."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from inspect import Parameter, Signature
from typing import Any, get_type_hints

import msgspec


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """`command` as typer can read it: each of its parameters that is annotated with a dataclass or
    a msgspec struct is replaced by the fields of that class, which are typer's options."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if _is_group(hint)}

    def flat(**values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in _fields(group)})
            for name, group in groups.items()
        }
        command(**values, **made)

    parameters: list[Parameter] = []
    for one in inspect.signature(command).parameters.values():
        own = one.replace(annotation=hints[one.name], kind=Parameter.KEYWORD_ONLY)
        parameters += _fields(groups[one.name]) if one.name in groups else [own]
    flat.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # read by `inspect`
    flat.__name__, flat.__doc__ = command.__name__, command.__doc__
    return flat


def _is_group(hint: Any) -> bool:
    return isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, msgspec.Struct))


def _fields(group: type) -> Iterator[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for one in inspect.signature(group).parameters.values():
        yield one.replace(annotation=hints[one.name], kind=Parameter.KEYWORD_ONLY)
