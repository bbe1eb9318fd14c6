"""Lines of TOML text."""

from __future__ import annotations

import re
import tomllib

from justai_sim.designs import Key

_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'{3}.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''''  # strings
    r"""|\#[^\n]*|\n|[\[\]{},=.]|[^\s\[\]{},=.\#"\']+""",
    re.DOTALL,
)


class Lines:
    """`of`: the line, from 1, of every table, key and array element of valid TOML text; tomllib does not tell.

    >>> Lines("[a]\\nb = [{c = 1},\\n {c = 2}]").of[("a", "b", 1, "c")]
    3
    """

    def __init__(self, text: str) -> None:
        self.of: dict[Key, int] = {}
        self._tokens: list[tuple[str, int]] = []
        self._at = 0
        self._tables: dict[Key, int] = {}
        """Elements so far of each array of tables."""
        line = 1
        table: Key = ()
        for m in _TOKEN.finditer(text):
            if not m[0].startswith("#"):
                self._tokens.append((m[0], line))
            line += m[0].count("\n")
        while self._next:
            if self._next == "\n":
                self._at += 1
            elif self._next == "[":
                table = self._header()
            else:
                self._pair(table)

    def nearest(self, path: Key) -> int:
        """The line of a key, else of the innermost table around it that is written; 0 if there is none."""
        while path and path not in self.of:
            path = path[:-1]
        return self.of.get(path, 0)

    @property
    def _next(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _header(self) -> Key:
        """Reads [a.b] or [[a.b]]: the path of the table that it opens."""
        line = self._tokens[self._at][1]
        self._at += 1
        many = self._next == "["
        self._at += many
        path: Key = ()
        names = self._names()
        for i, name in enumerate(names):
            path = (*path, name)
            self.of.setdefault(path, line)
            if many and i == len(names) - 1:
                self._tables[path] = self._tables.get(path, 0) + 1
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
                self.of.setdefault(path, line)
        self._at += 1 + many
        return path

    def _names(self) -> list[str]:
        names: list[str] = []
        while not names or self._next == ".":
            self._at += bool(names)
            name = self._next
            names.append(str(tomllib.loads(f"k = {name}")["k"]) if name[0] in "\"'" else name)
            self._at += 1
        return names

    def _pair(self, path: Key) -> None:
        line = self._tokens[self._at][1]
        for name in self._names():
            path = (*path, name)
            self.of.setdefault(path, line)
        self._at += 1  # the equals sign
        self._value(path)

    def _value(self, path: Key) -> None:
        opened = self._next
        self._at += 1
        if opened not in ("{", "["):
            while self._next not in ("", "\n", ",", "]", "}"):
                self._at += 1
            return
        n = 0
        while self._next not in ("", "}", "]"):
            if self._next in (",", "\n"):
                self._at += 1
            elif opened == "{":
                self._pair(path)
            else:
                self.of[(*path, n)] = self._tokens[self._at][1]
                self._value((*path, n))
                n += 1
        self._at += 1
