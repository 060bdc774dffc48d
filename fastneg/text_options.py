"""Options of readers, for files whose name and bytes do not say how to read them."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from fastneg import checks
from fastneg.errors import FastnegError, FastnegTypeError

FORMATS = ("csv", "tsv", "json", "adjacency", "parquet", "arrow", "npz")


class TextOptions(TypedDict, total=False):
    """How to read a file where its name and bytes do not say it (docs/files.md)."""

    format: str | None
    delimiter: str | None
    column_names: Sequence[str] | None
    nulls: bool
    quoting: bool | None
    encoding: str | None


@dataclass(frozen=True)
class TextFormat:
    """``TextOptions`` that were checked.

    Attributes:
        format: one of ``FORMATS``; None: as the suffix says.
        delimiter: between two columns; None: comma or tab, as the suffix says.
        column_names: of a text without a header line.
        nulls: whether texts such as ``NULL`` and ``nan`` are missing values.
        quoting: whether ``"`` quotes; None: yes, unless the result is in doubt.
        encoding: None: UTF-8, or what a byte-order mark says.
    """

    format: str | None = None
    delimiter: str | None = None
    column_names: tuple[str, ...] | None = None
    nulls: bool = True
    quoting: bool | None = None
    encoding: str | None = None

    @classmethod
    def of(cls, options: TextOptions, *, call: str) -> TextFormat:
        """The options, checked.

        Raises:
            FastnegTypeError: an unknown keyword.
            FastnegError: a value that is not possible.
        """
        known = cls.__dataclass_fields__
        for name in options:
            if name not in known:
                raise FastnegTypeError(
                    f"{call}: there is no argument {name!r}; those for files are {', '.join(known)}"
                )
        given: dict[str, Any] = dict(options)
        if given.get("format") is not None:
            checks.as_choice(given["format"], FORMATS, call=call, name="format")
        if given.get("delimiter") is not None:
            _require_delimiter(given["delimiter"], call)
        if given.get("encoding") is not None:
            _require_encoding(given["encoding"], call)
        names = given.get("column_names")
        if names is not None:
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                raise FastnegTypeError(
                    f"{call}: column_names = {checks.shown(names)}; give a list of names"
                )
            given["column_names"] = tuple(names)
        for name, right in (("nulls", (True, False)), ("quoting", (True, False, None))):
            if not any(given.get(name, True) is one for one in right):
                checks.fail(call, f"{name} = {checks.shown(given[name])}; give True or False")
        if given.get("quoting") and len(given.get("delimiter") or "") > 1:
            checks.fail(
                call,
                f"quoting = True has no effect with delimiter = {given['delimiter']!r}: quotes "
                "work with delimiters of one character only",
            )
        return cls(**given)


PLAIN = TextFormat()


def _require_delimiter(delimiter: Any, call: str) -> None:
    if (
        not isinstance(delimiter, str)
        or not 1 <= len(delimiter) <= 16
        or (len(delimiter) > 1 and any(character.isalnum() for character in delimiter))
    ):
        checks.fail(
            call,
            f"delimiter = {checks.shown(delimiter)}; give one character, or several that are "
            "neither letters nor digits, such as '::'",
        )
    try:
        delimiter.encode()
    except UnicodeError:
        checks.fail(call, f"delimiter = {delimiter!a} is not valid Unicode")
    if any(character in '\n\r"' for character in delimiter):
        checks.fail(call, f"delimiter = {delimiter!r} has a quote or a line break in it")


def _require_encoding(encoding: Any, call: str) -> None:
    try:
        b"".decode(encoding)
        codecs.getincrementaldecoder(encoding)
    except (LookupError, TypeError, ValueError) as error:
        raise FastnegError(
            f"{call}: encoding = {checks.shown(encoding)} is not one that Python knows; give, for "
            "instance, 'utf-8', 'utf-16', 'latin-1' or 'cp1252'"
        ) from error
