"""The base of every specification: frozen, keyword-only, checked when it is built, identified by its content.

A subclass of `Spec` is written like a dataclass. Its annotations contain the allowed range, so that an impossible value
fails at once, with one line that says what is allowed:

>>> from typing import Annotated
>>> class Ramp(Spec):
...     steps: Annotated[int, at_least(1)] = 10
...     rate: Annotated[float, above(0)] = 0.1
>>> Ramp(steps=0)
Traceback (most recent call last):
rnnstudy.errors.SpecError: Ramp.steps is 0; it must be at least 1
>>> Ramp(step=3)
Traceback (most recent call last):
rnnstudy.errors.SpecError: Ramp has no field 'step'; did you mean 'steps'? Its fields: steps, rate
>>> Ramp(steps=3)
Ramp(steps=3)
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import math
import numbers
import pkgutil
import sys
import types
import typing
from abc import ABC
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, NoReturn, Self, TypeVar, dataclass_transform

from rnnstudy.errors import ClassMissing, RequestError, RnnstudyError, SpecError, nearest, shown  # noqa: F401


@dataclasses.dataclass(frozen=True)
class Bound:
    """The range of a field, part of its `Annotated` type."""

    contains: Callable[[Any], bool]
    description: str


def at_least(low: float) -> Bound:
    return Bound(lambda value: value >= low, f"at least {low}")


def above(low: float) -> Bound:
    return Bound(lambda value: value > low, f"greater than {low}")


def between(low: float, high: float) -> Bound:
    return Bound(lambda value: low <= value <= high, f"between {low} and {high}")


@dataclasses.dataclass(frozen=True)
class Mark:
    """A property of a field, part of its `Annotated` type."""

    name: str


PER_REPLICA = Mark("per replica")
"""Runs that differ only in such fields still train together as one population."""

NOT_IDENTITY = Mark("not identity")
"""The field does not change the result of a run, so it is not part of the key."""

LOCATION = Mark("location")
"""Where data lie whose content another field identifies: not part of the key, but stored beside it."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Spec(ABC):  # noqa: B024  (subclasses add the abstract methods)
    """A frozen, keyword-only specification.

    Subclasses declare fields as a dataclass does; `check` adds conditions on several fields. Raises `SpecError` for an
    unknown or missing field, a value of the wrong type, or one outside its range. An `int` where a `float` is expected
    becomes a `float`, so that 1 and 1.0 mean the same run.

    `version` is increased when the *meaning* of a class changes: the keys change, and old results no longer match.
    """

    version: ClassVar[int] = 1

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        dataclasses.dataclass(frozen=True, kw_only=True, repr=False)(cls)
        generated = cls.__init__

        @functools.wraps(generated)
        def initialise(self: Any, *positional: Any, **values: Any) -> None:
            _refuse_unknown_or_missing(cls, positional, values)
            generated(self, **values)

        cls.__init__ = initialise

    def __post_init__(self) -> None:
        for field, hint in _hints(type(self)).items():
            value = _coerce(getattr(self, field), hint, f"{type(self).__name__}.{field}")
            object.__setattr__(self, field, value)
        self.check()

    def check(self) -> None:  # noqa: B027  (most specifications have nothing to add)
        """Checks conditions on several fields and raises `SpecError`. The base class has none."""

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in _non_default_fields(self).items())
        return f"{type(self).__name__}({inside})"

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; all checks run again."""
        return type(self)(**{**field_values(self), **changes})


def field_values(spec: Spec) -> dict[str, Any]:
    """Field names and values of `spec`, in the order of declaration."""
    return {name: getattr(spec, name) for name in _fields(type(spec))}


@functools.cache
def marks(spec: type[Spec], field: str) -> frozenset[Mark]:
    """The marks of `field` of the class `spec`."""
    return frozenset(mark for mark in getattr(_hints(spec)[field], "__metadata__", ()) if isinstance(mark, Mark))


def qualified_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def canonical(value: Any, leave_out: frozenset[Mark] = frozenset({NOT_IDENTITY, LOCATION})) -> Any:
    """The meaning of a specification as plain JSON values.

    A class is represented by its qualified name, and its version when that is not 1. Fields equal to their default are
    left out, so that a new field with a default changes no key; so are those with a mark in `leave_out`. Where data lie
    stands apart, as `located`.
    """
    if isinstance(value, Spec):
        fields = {
            name: canonical(item, leave_out)
            for name, item in _non_default_fields(value).items()
            if not marks(type(value), name) & leave_out and _differs_from_default(value, name, leave_out)
        }
        located = {name: fields.pop(name) for name in list(fields) if LOCATION in marks(type(value), name)}
        version = {} if type(value).version == 1 else {"version": type(value).version}
        further = {"located": located} if located else {}
        return {"class": qualified_name(type(value)), **version, "fields": fields, **further}
    if isinstance(value, tuple):
        return [canonical(item, leave_out) for item in value]
    return value


def digest(value: Any) -> str:
    """Twelve hexadecimal digits (48 bits) of the SHA-256 of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def build(described: Any) -> Any:
    """The inverse of `canonical`: finds the classes and builds the specification again.

    Raises `ClassMissing` when a class is not loaded, and `SpecError` when its version has changed, or when `described`
    does not describe a specification.
    """
    if isinstance(described, Mapping):
        name, fields, located = described.get("class"), described.get("fields"), described.get("located", {})
        if not (isinstance(name, str) and isinstance(fields, Mapping) and isinstance(located, Mapping)):
            raise SpecError(f"{shown(described)} is not a specification; it needs 'class' and 'fields'")
        cls = _class_called(name)
        if described.get("version", 1) != cls.version:
            raise SpecError(
                f"{cls.__name__} was stored as version {shown(described.get('version', 1))} and is now version "
                f"{cls.version}; check out the commit named in the run's tags to build it again"
            )
        return cls(**{str(field): build(item) for field, item in {**fields, **located}.items()})
    if isinstance(described, list):
        return tuple(build(item) for item in described)
    return described


def _class_called(name: str) -> type[Spec]:
    """The specification class of a qualified name.

    Only modules of this package are imported: a stored specification may come from other people, and importing runs
    code. The classes of an experiment file are found once the user has loaded that file.
    """
    module, _, path = name.partition(":")
    try:
        if module.startswith(f"{__package__}."):
            importlib.import_module(module)
        cls = functools.reduce(lambda scope, part: vars(scope)[part], path.split("."), sys.modules[module])
    except (ImportError, KeyError, TypeError):
        raise ClassMissing(f"{shown(name)[1:-1]} cannot be found; load the file that defines it") from None
    if not (isinstance(cls, type) and issubclass(cls, Spec)):
        raise SpecError(f"{shown(name)[1:-1]} is not a specification class")
    return cls


def flatten(spec: Spec, prefix: str = "", leave_out: frozenset[Mark] = frozenset()) -> dict[str, Any]:
    """Dotted path to plain value of each field without a mark in `leave_out`; a nested specification to its class."""
    flat: dict[str, Any] = {}
    for name, value in field_values(spec).items():
        path = f"{prefix}{name}"
        if marks(type(spec), name) & leave_out:
            continue
        if isinstance(value, Spec):
            flat[path] = type(value).__name__
            flat.update(flatten(value, f"{path}.", leave_out))
        elif isinstance(value, tuple) and any(isinstance(item, Spec) for item in value):
            flat[path] = ", ".join(map(repr, value))
        else:
            flat[path] = value
    return flat


SomeSpec = TypeVar("SomeSpec", bound=Spec)


def assign(spec: SomeSpec, path: str, value: Any) -> SomeSpec:
    """A copy of `spec` with the field at the dotted `path` set to `value`. Raises `SpecError` for an unknown field."""
    name, _, rest = path.partition(".")
    known = field_values(spec)
    if name not in known:
        hint = nearest(name, known) or ";"
        raise SpecError(f"{type(spec).__name__} has no field '{name}'{hint} Its fields: {', '.join(known)}")
    if not rest:
        return spec.replace(**{name: value})
    inner = known[name]
    if not isinstance(inner, Spec):
        raise SpecError(f"{type(spec).__name__}.{name} is {shown(inner)} and has no field '{rest}'")
    return spec.replace(**{name: assign(inner, rest, value)})


def _non_default_fields(spec: Spec) -> dict[str, Any]:
    """The fields whose value is not the default."""
    fields = _fields(type(spec))
    return {name: value for name, value in field_values(spec).items() if not _same(value, fields[name].default)}


def _differs_from_default(spec: Spec, field: str, leave_out: frozenset[Mark]) -> bool:
    """False for a nested specification that differs from the default only in fields that are left out."""
    value, default = getattr(spec, field), getattr(type(spec), field, None)
    return not isinstance(value, Spec) or canonical(value, leave_out) != canonical(default, leave_out)


def _same(value: Any, default: Any) -> bool:
    return (type(value) is type(default) and value == default) or (
        isinstance(value, float) and isinstance(default, int) and value == default
    )


def _refuse_unknown_or_missing(cls: type, positional: tuple[Any, ...], given: dict[str, Any]) -> None:
    fields = _fields(cls)
    if positional:
        raise SpecError(f"{cls.__name__} takes its fields by keyword only, for example {next(iter(fields), 'field')}=…")
    for name in given:
        if name not in fields:
            hint = nearest(name, fields) or ";"
            raise SpecError(f"{cls.__name__} has no field '{name}'{hint} Its fields: {', '.join(fields) or 'none'}")
    required = (name for name, field in fields.items() if dataclasses.MISSING is field.default is field.default_factory)
    if missing := [name for name in required if name not in given]:
        raise SpecError(f"{cls.__name__} needs {', '.join(missing)}")


@functools.cache
def _fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(cls)}


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: hints[name] for name in _fields(cls)}


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """`value` converted to the type `hint`; raises `SpecError` for a value of another type or out of bounds."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        plain, *extras = typing.get_args(hint)
        value = _coerce(value, plain, where)
        for bound in extras:
            if isinstance(bound, Bound) and value is not None and not bound.contains(value):
                raise SpecError(f"{where} is {shown(value)}; it must be {bound.description}", out_of_bounds=True)
        return value
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            try:
                return _coerce(value, option, where)
            except SpecError as error:
                if error.out_of_bounds:
                    raise
        raise SpecError(f"{where} is {shown(value)}; it takes {_type_description(hint)}")
    if origin is typing.Literal:
        options = typing.get_args(hint)
        if value not in options:
            close = nearest(str(value) if isinstance(value, str) else "", map(str, options)) or ";"
            raise SpecError(f"{where} is {shown(value)}{close} It takes {', '.join(map(repr, options))}")
        return value
    if origin is tuple:
        return _coerce_tuple(value, hint, where)
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not _is_finite(value):
            raise SpecError(f"{where} is {shown(value)}; it takes a finite number")
        return float(value)
    if hint is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        if abs(int(value)) >= 2**63:  # Those of arrays and databases are smaller, too.
            raise SpecError(f"{where} is {shown(value)}; it must be less than 2^63", out_of_bounds=True)
        return int(value)
    if hint is int or (isinstance(hint, type) and not isinstance(value, hint)):
        raise SpecError(f"{where} is {shown(value)}; it takes {_type_description(hint)}")
    return value


def _is_finite(value: numbers.Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # An integer beyond the range of floats.
        return False


def _coerce_tuple(value: Any, hint: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise SpecError(f"{where} is {shown(value)}; it takes {_type_description(hint)}")
    items = typing.get_args(hint)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise SpecError(f"{where} has {len(value)} values; it takes {len(items)}")
    return tuple(
        _coerce(item, kind, f"{where}[{index}]") for index, (item, kind) in enumerate(zip(value, items, strict=True))
    )


_NAMES = {int: "a whole number", float: "a finite number", bool: "True or False", str: "a text", types.NoneType: "None"}


def _type_description(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _type_description(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_description(option) for option in typing.get_args(hint))
    if origin is tuple:
        return f"a tuple of {_type_description(typing.get_args(hint)[0])}"
    if hint in _NAMES:
        return _NAMES[hint]
    if not isinstance(hint, type):
        return str(hint)
    return f"{'an' if hint.__name__[0] in 'AEIOU' else 'a'} {hint.__name__}"


def export_specifications(package: dict[str, Any]) -> Callable[[str], Any]:
    """Adds every specification class that the modules of a package define to the namespace `package` of that package.

    A task, a cell or a probe is therefore added by adding one file. Returns the `__getattr__` of the package, which
    raises `AttributeError` with the most similar name.
    """
    name = package["__name__"]
    for module_info in pkgutil.iter_modules(package["__path__"]):
        module = importlib.import_module(f"{name}.{module_info.name}")
        for value in list(vars(module).values()):
            if inspect.isclass(value) and issubclass(value, Spec) and value.__module__ == module.__name__:
                package[value.__name__] = value
    package["__all__"] = names = sorted(key for key, value in package.items() if inspect.isclass(value))

    def missing(wanted: str) -> NoReturn:
        hint = nearest(wanted, names) or ";"
        raise AttributeError(f"{name} has no '{wanted}'{hint} It has {', '.join(names)}", name=wanted)

    return missing


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names are imported at first use (PEP 562).

    `modules`: name to the module that defines it, without the prefix `rnnstudy.`, as `module` or `module:other_name`.
    """

    def imported(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'", name=name)
        module, _, other_name = modules[name].partition(":")
        return getattr(importlib.import_module(f"rnnstudy.{module}"), other_name or name)

    return imported


def concrete(base: type[Spec]) -> list[type[Spec]]:
    """All subclasses of `base` that are not abstract, in alphabetical order, wherever they are defined."""
    found, to_visit = set[type[Spec]](), [base]
    while to_visit:
        for child in to_visit.pop().__subclasses__():
            to_visit.append(child)
            if not inspect.isabstract(child):
                found.add(child)
    return sorted(found, key=lambda cls: (cls.__name__, cls.__module__))
