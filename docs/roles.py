"""Extension for the reference: convert Sphinx roles in docstrings (`:class:`~a.b.C``) to Markdown code (`C`)."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":\w+:`(~?)([\w.]+)(\(\))?`")


class Roles(griffe.Extension):
    """Rewrite the docstring of every object."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_code, obj.docstring.value)


def _code(role: re.Match[str]) -> str:
    name = role[2].rpartition(".")[2] if role[1] else role[2]
    return f"`{name}{role[3] or ''}`"
