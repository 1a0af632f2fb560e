"""Values in words: environment variables are text, and TOML has no null; here their text becomes None or a number."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationInfo


def read_words(cls: type[BaseModel], value: object, info: ValidationInfo) -> object:
    """Read the text of a field's value where pydantic does not: `none` as None, and digits as one of a field's numbers.

    A before-validator of all fields of a group: `field_validator("*", mode="before")(read_words)`. pydantic turns "4"
    into 4 for an int, and refuses it for a Literal of numbers.
    """
    if not isinstance(value, str) or info.field_name is None:
        return value
    text = value.strip().lower()
    for alternative in _alternatives(cls.model_fields[info.field_name].annotation):
        if alternative is NoneType and text == "none":
            return None
        if get_origin(alternative) is Literal:
            for choice in get_args(alternative):
                if not isinstance(choice, str) and str(choice).lower() == text:
                    return choice
    return value


def _alternatives(annotation: object) -> Iterator[object]:
    """Yield the types of a union, without what only annotates them."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for alternative in get_args(annotation):
            yield from _alternatives(alternative)
    else:
        yield annotation
