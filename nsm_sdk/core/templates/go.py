# SPDX-License-Identifier: Apache-2.0
"""The Go spelling of templates, translated to Jinja's.

Does:  `translate` makes Jinja source of a text in the spelling of Go's text templates: fields, variables, literals,
       functions, pipes, parentheses, `if` and `with`, comments, trim marks. Every literal and name becomes a numbered
       constant: no character of the text gets into the source, and texts of one shape share one source.
Place: `nsm_sdk.core.templates.engine` alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from nsm_sdk.core.templates.functions import ARGUMENTS, OURS
from nsm_sdk.errors import TemplateError

DEEPEST = 32
"""Parentheses and branches within each other."""

_SPACES = " \t\r\n"
_CLOSE = re.compile(r"(?:[ \t\r\n]+(?P<trim>-))?\}\}")
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\\n]|\\[^\n])*"|`[^`]*`)|(?P<char>'(?:[^'\\\n]|\\[^\n])*')"""
    r"""|(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?))"""
    r"""|(?P<variable>\$\w*)|(?P<field>\.[^\W\d]\w*)|(?P<dot>\.)|(?P<word>[^\W\d]\w*)|(?P<assign>:=|=)|(?P<mark>[()|])"""
)
_ESCAPE = re.compile(r"""\\(?:([abfnrtv\\'"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.?))""")
_ESCAPED = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True))
_LOOPS = {"range", "break", "continue", "define", "template", "block"}
_KEYWORDS = _LOOPS | {"if", "with", "else", "end", "nil"}
_LOOP_HINT = "Jinja's spelling has loops: {% for … %}"
_LARGEST = 1 << 63
_LONGEST_NUMBER = 64


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    offset: int
    spaced: bool = True


@dataclass(frozen=True, slots=True)
class Translation:
    """Jinja source, the constants `k0`, `k1`, … that it speaks of, and where each line of it comes from."""

    source: str
    constants: Mapping[str, str | int | float | bool]
    offsets: tuple[int, ...]
    paths: tuple[tuple[int, tuple[str, ...]], ...]
    """Offset and names of every chain of fields that begins at the root."""
    weight: int
    """Tokens of the text."""


def error_at(text: str, offset: int, message: str, hint: str = "") -> TemplateError:
    """The error that `message` describes, at a place of `text` counted in characters from 0."""
    line = text.count("\n", 0, offset) + 1
    return TemplateError(message, line=line, column=offset - text.rfind("\n", 0, offset), hint=hint)


def translate(text: str, *, ours: bool, strict: bool, most: int) -> Translation:
    """The translation of `text`; TemplateError for one that Go would not read either, or of more than `most` tokens.

    With `ours` the functions `target` and `domain` are known. With `strict` what Go refuses only when it gets there,
    such as a wrong number of arguments, is refused at once.
    """
    tokens: list[Token] = []
    for token in _tokens(text):
        if len(tokens) >= most:
            raise error_at(text, token.offset, f"the template has more than {most} parts")
        if ours and token.kind == "text" and "{%" in token.text:
            raise error_at(text, text.index("{%", token.offset), "Go's spelling has no {%")
        tokens.append(token)
    known = ARGUMENTS.keys() if ours else ARGUMENTS.keys() - OURS
    translator = _Translator(text, tokens, known, strict)
    translator.document()
    return Translation(
        "".join(translator.out),
        {f"k{number}": each for number, each in enumerate(translator.constants)},
        tuple(translator.offsets),
        tuple(translator.paths),
        len(tokens),
    )


def _tokens(text: str) -> Iterator[Token]:
    """Texts, and between an "open" and a "close" the tokens of each action; in one pass."""
    at = 0
    trimmed = False
    while True:
        start = text.find("{{", at)
        literal = text[at : start if start >= 0 else len(text)]
        literal = literal.lstrip(_SPACES) if trimmed else literal
        begin = at
        at = start + 2
        trim = start >= 0 and text[at : at + 1] == "-" and text[at + 1 : at + 2] in tuple(_SPACES)
        literal = literal.rstrip(_SPACES) if trim else literal
        if literal:
            yield Token("text", literal, begin)
        if start < 0:
            return
        at += 2 if trim else 0
        if text.startswith("/*", at):
            end = text.find("*/", at + 2)
            closed = _CLOSE.match(text, end + 2) if end >= 0 else None
            if closed is None:
                raise error_at(text, start, "a comment that does not end with */}}")
        else:
            yield Token("open", "", start)
            closed = yield from _action(text, at, start)
            yield Token("close", "", closed.start())
        at, trimmed = closed.end(), closed["trim"] is not None


def _action(text: str, at: int, start: int) -> Generator[Token, None, re.Match[str]]:
    """The tokens of one action, and what closed it."""
    spaced = True
    before = ""
    while (closed := _CLOSE.match(text, at)) is None:
        if text[at : at + 1] in tuple(_SPACES):
            spaced = True
            at += 1
            continue
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            if at >= len(text):
                raise error_at(text, start, "an action that is not closed", "close it with }}")
            what = "a text that is not closed" if text[at] in "\"'`" else f"unexpected {text[at]!r}"
            raise error_at(text, at, what)
        kind = found.lastgroup
        if not spaced and kind not in ("field", "mark", "assign") and before not in ("mark", "assign"):
            raise error_at(text, at, f"unexpected {found[0][:32]!r}", "put a space before it")
        yield Token(kind, found[0], at, spaced)
        spaced, before, at = False, kind, found.end()
    return closed


@dataclass(slots=True)
class _Translator:
    text: str
    tokens: list[Token]
    known: Collection[str]
    strict: bool
    at: int = 0
    depth: int = 0
    dot: str = "dot"
    variables: dict[str, str] = field(default_factory=lambda: {"$": "dot"})
    named: int = 0
    out: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    constants: list[str | int | float | bool] = field(default_factory=list)
    paths: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def document(self) -> None:
        stopped = self.block()
        if stopped is not None:
            raise self.unexpected(stopped)

    def peek(self) -> Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else Token("end", "", len(self.text))

    def take(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def emit(self, source: str, offset: int) -> None:
        self.out.append(source)
        self.offsets.append(offset)

    def refuse(self, token: Token, message: str, hint: str = "") -> NoReturn:
        raise error_at(self.text, token.offset, message, hint)

    def unexpected(self, token: Token) -> TemplateError:
        if token.kind == "end":
            return error_at(self.text, token.offset, "the text ends before {{ end }}", "close {{ if }} and {{ with }}")
        return error_at(self.text, token.offset, f"unexpected {token.text[:32] or '}}'!r}")

    def close(self) -> None:
        token = self.take()
        if token.kind != "close":
            raise self.unexpected(token)

    def deeper(self, token: Token) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            self.refuse(token, f"more than {DEEPEST} levels within each other")

    def constant(self, value: str | float | bool) -> str:
        self.constants.append(value)
        return f"k{len(self.constants) - 1}"

    def block(self) -> Token | None:
        """What stands up to an `else` or `end`, which it returns; None at the end of the text."""
        outer = dict(self.variables)
        stopped = None
        while self.at < len(self.tokens):
            token = self.take()
            if token.kind == "text":
                self.emit(f"{{{{ {self.constant(token.text)}\n}}}}", token.offset)
                continue
            word = self.peek()
            if word.kind == "word" and word.text in ("if", "with"):
                self.branch(self.take())
            elif word.kind == "word" and word.text in ("else", "end"):
                stopped = self.take()
                break
            else:
                self.action()
        self.variables = outer
        return stopped

    def action(self) -> None:
        offset = self.peek().offset
        variable, value = self.declared()
        self.close()
        if variable:
            self.emit(f"{{% set {variable} = {value}\n%}}", offset)
        else:
            self.emit(f"{{{{ {value}\n}}}}", offset)

    def branch(self, word: Token) -> None:
        """An `if` or `with` up to its `end`, with all its `else`."""
        self.deeper(word)
        outer, dot = dict(self.variables), self.dot
        variable, value = self.declared()
        self.close()
        if word.text == "with":
            self.named += 1
            self.dot = f"d{self.named}"
            self.emit(f"{{% set {self.dot} = {value}\n%}}", word.offset)
            value = self.dot
        if variable:
            self.emit(f"{{% set {variable} = {value}\n%}}", word.offset)
            value = variable
        self.emit(f"{{% if {value}\n%}}", word.offset)
        stopped = self.block()
        self.dot = dot
        if stopped is not None and stopped.text == "else":
            again = self.peek()
            self.emit("{% else\n%}", stopped.offset)
            if again.kind == "word" and again.text == word.text:
                self.branch(self.take())
                stopped = Token("word", "end", stopped.offset)
            else:
                self.close()
                stopped = self.block()
                if stopped is not None and stopped.text == "end":
                    self.close()
        elif stopped is not None:
            self.close()
        if stopped is None or stopped.text != "end":
            raise self.unexpected(stopped or self.peek())
        self.emit("{% endif\n%}", stopped.offset)
        self.variables = outer
        self.depth -= 1

    def declared(self) -> tuple[str, str]:
        """A pipeline and the variable that it is given to, if any."""
        token = self.peek()
        following = self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else token
        if token.kind != "variable" or following.kind != "assign":
            return "", self.pipeline()
        self.at += 2
        if following.text == "=" and not following.spaced:
            raise self.unexpected(following)
        value = self.pipeline()
        if following.text == ":=":
            self.named += 1
            self.variables[token.text] = f"v{self.named}"
        elif token.text == "$" or token.text not in self.variables:
            self.refuse(token, f"the variable {token.text[:32]} is not known", "make it with :=")
        return self.variables[token.text], value

    def pipeline(self) -> str:
        piped = ""
        first = True
        while True:
            token = self.peek()
            if not first and (token.kind == "close" or token.text == ")"):
                return piped
            piped = self.command(piped)
            if self.peek().text != "|" or self.peek().kind != "mark":
                return piped
            self.take()
            first = False

    def command(self, piped: str) -> str:
        """One function call, or one value; `piped` is its last argument."""
        begin = self.peek()
        name = ""
        operands: list[str] = []
        if begin.kind == "word" and begin.text not in ("true", "false"):
            name = self.function(self.take())
        elif piped and begin.kind in ("string", "number", "char", "word", "dot"):
            self.refuse(begin, "only a function can follow |")
        while self.peek().kind not in ("close", "end") and self.peek().text not in ("|", ")"):
            token = self.peek()
            if (name or operands) and not token.spaced:
                self.refuse(token, f"unexpected {token.text[:32]!r}", "put a space before it")
            operands.append(self.operand())
        if not name and not operands:
            if self.peek().kind == "end":
                raise self.unexpected(self.peek())
            self.refuse(self.peek(), "a value is missing")
        if piped:
            operands.append(piped)
        if not name and len(operands) == 1:
            return operands[0]
        return self.call(begin, name, operands)

    def function(self, token: Token) -> str:
        if token.text in _LOOPS:
            self.refuse(token, f"{token.text} is not supported", _LOOP_HINT)
        if token.text in _KEYWORDS or token.text not in self.known:
            hint = f"for a field or label write .{token.text[:32]}" if token.text not in _KEYWORDS else ""
            self.refuse(token, f"the function {token.text[:32]!r} is not known", hint)
        return token.text

    def call(self, token: Token, name: str, operands: list[str]) -> str:
        least, most = ARGUMENTS[name] if name else (0, -1)
        if not least <= len(operands) <= most:
            if self.strict:
                what = f"{name} has {len(operands)} arguments" if name else "only a function takes arguments"
                self.refuse(token, what)
            return f"[{', '.join(operands)}]|misused"
        match name:
            case "and" | "or":
                return f"({f' {name} '.join(operands)})"
            case "not":
                return f"(not {operands[0]})"
        return f"[{', '.join(operands)}]|{name}"

    def operand(self) -> str:
        token = self.take()
        path: list[str] | None = None
        match token.kind:
            case "dot":
                value, path = self.dot, [] if self.dot == "dot" else None
            case "field":
                value = f"{self.dot}|field({self.constant(token.text[1:])})"
                path = [token.text[1:]] if self.dot == "dot" else None
            case "variable":
                if token.text not in self.variables:
                    self.refuse(token, f"the variable {token.text[:32]} is not known")
                value, path = self.variables[token.text], [] if token.text == "$" else None
            case "mark" if token.text == "(":
                self.deeper(token)
                value = f"({self.pipeline()})"
                if self.take().text != ")":
                    self.refuse(token, "a parenthesis that is not closed")
                self.depth -= 1
            case "string":
                value = self.constant(self.unquoted(token))
            case "char":
                value = self.constant(self.character(token))
            case "number":
                value = self.constant(self.number(token))
            case "word" if token.text in ("true", "false"):
                value = self.constant(token.text == "true")
            case "word":
                value = self.call(token, self.function(token), [])
            case _:
                raise self.unexpected(token)
        while self.peek().kind == "field" and not self.peek().spaced:
            if token.kind not in ("field", "variable", "mark"):
                raise self.unexpected(self.peek())
            name = self.take().text[1:]
            value = f"{value}|field({self.constant(name)})"
            path = None if path is None else [*path, name]
        if path:
            self.paths.append((token.offset, tuple(path)))
        return value

    def unquoted(self, token: Token) -> str:
        if token.text[0] == "`":
            return token.text[1:-1].replace("\r", "")

        def unescaped(found: re.Match[str]) -> str:
            letter, *codes, octal, other = found.groups()
            if letter and letter != ("'" if token.kind == "string" else '"'):
                return _ESCAPED[letter]
            code = int(octal, 8) if octal else int(next((each for each in codes if each), "110000"), 16)
            if other is not None or code > 0x10FFFF or 0xD800 <= code < 0xE000 or (code > 127 and (octal or codes[0])):
                self.refuse(token, f"the escape {found[0]!r} is not known")
            return chr(code)

        return _ESCAPE.sub(unescaped, token.text[1:-1])

    def character(self, token: Token) -> int:
        text = self.unquoted(token)
        if len(text) != 1:
            self.refuse(token, "one character is meant")
        return ord(text)

    def number(self, token: Token) -> int | float:
        text = token.text
        if len(text) > _LONGEST_NUMBER:
            self.refuse(token, "a number that is too long")
        try:
            if not re.search(r"[.eE]", text) or text.lstrip("+-")[:2].lower() == "0x":
                old_octal = re.fullmatch(r"([+-]?)0([0-7_]+)", text)
                value = int(f"{old_octal[1]}0o{old_octal[2]}" if old_octal else text, 0)
                if not -_LARGEST <= value < _LARGEST:
                    self.refuse(token, "a number that is too large")
                return value
            real = float(text)
        except ValueError:
            self.refuse(token, "no number")
        if abs(real) == float("inf"):
            self.refuse(token, "a number that is too large")
        return real
