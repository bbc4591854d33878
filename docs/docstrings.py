"""An extension of Griffe, which reads the docstrings for the reference: equations and examples stay what they are.

In Markdown the underscores of h_t and W_hh may begin an emphasis, `<` an element of HTML, and the `>>>` of a doctest
begins a quotation.
"""

import re
from typing import Any

from griffe import Attribute, Class, Extension, Object

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")
"""The line that begins a list of names with descriptions."""

NAME = re.compile(r" *\*{0,2}\w+: ")
"""The beginning of a line that may name an argument or an attribute."""

NAMES = re.compile(r"( +)((?:\w+, )+)(\w+)(: .*)")
"""A line that names several, which Griffe does not know: the last gets the description, the others refer to it."""

CODE = re.compile(r"(`+[^`]+`+)")


def as_markdown(docstring: str) -> str:
    """A docstring as Markdown that shows its text: doctests are blocks of code, equations are not emphasised."""
    written: list[str] = []
    section = example = code = fenced = False
    for line in [*docstring.splitlines(), ""]:
        stripped, indented = line.strip(), line.startswith("    ")
        if stripped.startswith("```"):
            fenced = not fenced
        if fenced or stripped.startswith("```"):
            # A block of `with_fields`, for example.
            written.append(line)
            continue
        if line == "Fields:":
            # Google's name for it, under which Griffe adds the types and defaults.
            line = "Attributes:"
        if stripped and not indented:
            section = bool(SECTION.match(line))
        if section and (several := NAMES.fullmatch(line)):
            space, others, last, description = several.groups()
            written += [f"{space}{name}: see `{last}`." for name in others.rstrip(", ").split(", ")]
            line = space + last + description
        if stripped.startswith(">>>") and not example:
            example = True
            written.append("```pycon")
        elif not stripped and example:
            example = False
            written.append("```")
        # A block of code follows an empty line; elsewhere an indented line continues a list or a sentence.
        code = indented and not section and (code or not written or not written[-1].strip())
        written.append(line if code or example else _escaped(line))
    return "\n".join(written).rstrip()


def _escaped(line: str) -> str:
    name = NAME.match(line)
    start = name.end() if name else 0
    parts = CODE.split(line[start:])
    escaped = [part if place % 2 else part.replace("_", r"\_").replace("<", "&lt;") for place, part in enumerate(parts)]
    return line[:start] + "".join(escaped)


def with_fields(docstring: str, cls: Class) -> str:
    """A class's docstring, with a block of its fields that are described nowhere: their types and defaults say it."""
    fields = [
        f"{name}: {member.annotation}" + (f" = {member.value}" if member.value is not None else "")
        for name, member in cls.members.items()
        if isinstance(member, Attribute) and not name.startswith("_") and member.docstring is None
        if member.annotation is not None and "instance-attribute" in member.labels  # Not a ClassVar.
        if not re.search(rf"^ +{name}: ", docstring, re.MULTILINE)
    ]
    if not fields:
        return docstring
    return "\n".join([docstring, "", "```python", *fields, "```"])


class PlainText(Extension):
    """Passes every docstring through `as_markdown` and `with_fields` when it has been read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        if cls.docstring is not None:
            cls.docstring.value = with_fields(cls.docstring.value, cls)
