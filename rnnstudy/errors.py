"""The errors that are told to users in one line, and how values appear in them: short, and without passwords."""

import difflib
import re
from collections.abc import Iterable

PASSWORD = re.compile(r"(:/{1,2}[^\s/:@]*:)\S*@|([?&](?:password|passwd|pwd|token|sslpassword)=)[^\s&]+", re.IGNORECASE)
"""A password in an address: `scheme://user:password@host` (a path has one slash), or a field of its query."""

LONGEST = 200
"""The most characters of a value that an error shows."""


class RnnstudyError(Exception):
    """The base of all errors of this package. The message is one line: what is wrong, and what is allowed.

    Passwords in addresses are left out of it, whoever wrote the message: errors go to terminals, logs and tags.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(without_passwords(message))


class RequestError(RnnstudyError):
    """Something requested does not exist or cannot be done here: an option, a run, a report, a device."""


class SpecError(RnnstudyError, ValueError):
    """An impossible specification.

    `out_of_bounds`: the value has the right type but is out of range, so a union need not try another type.
    """

    def __init__(self, message: str, out_of_bounds: bool = False) -> None:
        super().__init__(message)
        self.out_of_bounds = out_of_bounds


class ClassMissing(SpecError):
    """A class of a stored specification that is not loaded."""


def without_passwords(text: str) -> str:
    """`text` with `…` in place of every password in an address.

    >>> without_passwords("postgresql://me:secret@host/db and http://host:5000")
    'postgresql://me:…@host/db and http://host:5000'
    """
    return PASSWORD.sub(lambda found: f"{found[1]}…@" if found[1] else f"{found[2]}…", text)


def message_of(error: BaseException) -> str:
    """`str(error)` in one line, also where that fails."""
    try:
        return " ".join(str(error).split())[: 10 * LONGEST]
    except (Exception, SystemExit):
        return "an error without a text"


def shown(value: object) -> str:
    """`repr(value)` in one line of at most `LONGEST` characters, also where the object's own `__repr__` fails.

    >>> shown(10**5000)
    'an int that cannot be printed'
    """
    try:
        text = " ".join(repr(value).split())
    except (Exception, SystemExit):
        # The value may come from anybody's class; and Python refuses to print integers of thousands of digits.
        name = type(value).__name__
        return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name} that cannot be printed"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the word of `words` most similar to `word`; empty when none is similar."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
