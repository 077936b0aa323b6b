# SPDX-License-Identifier: Apache-2.0
"""Templates: both spellings, what Go's own templates make of the same texts, places of errors, and bounds.

Does:  a table that Go's text templates filled in, a model of its own, hypothesis over any text, our own configuration.
Place: tests of `nsm_sdk.core.templates`.
State: none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, reject
from hypothesis import strategies as st

from nsm_sdk.api import Connection, ConnectionContext, IPContext, Mechanism
from nsm_sdk.core.templates import LONGEST, LONGEST_OF_OURS, Closed, LabelTemplates, Template, connection_fields
from nsm_sdk.core.templates.functions import NO_VALUE
from nsm_sdk.errors import TemplateError

GO = json.loads((Path(__file__).parent / "go_templates.json").read_text())
"""What Go's text templates make of a text over a flat map; null where they raise."""

WORDS = st.sampled_from(("a", "b", "c"))
LABELS = st.dictionaries(WORDS, WORDS, max_size=3)

OTHERWISE = {
    "range": "loops are left to our own configuration, in Jinja's spelling",
    "define": "a template of a line needs no templates within it",
    "block": "a template of a line needs no templates within it",
    "html": "no label is a page",
    "print nil": "a value that is none is never meant",
    "%c": "a verb for what labels never hold",
    "%T": "a verb for what labels never hold",
    "%[2]s": "numbered values: not supported",
    "%*d": "a width as a value: not supported",
    '%q" 65': "a number has no quotes here",
    '{{printf "%s" .z}}': "a value that does not fit its verb is an error, not a text that tells of one",
    '{{printf "%d" .a}}': "a value that does not fit its verb is an error, not a text that tells of one",
    '{{printf "%d" "x"}}': "a value that does not fit its verb is an error, not a text that tells of one",
    '{{printf "%s"}}': "a value that is missing is an error, not a text that tells of one",
    '{{printf "%s" 1}}': "a value that does not fit its verb is an error, not a text that tells of one",
    'printf "%t"': "a value that does not fit its verb is an error, not a text that tells of one",
    '{{printf "x" .a}}': "a value too many is an error, not a text that tells of one",
    "{{slice .n 0 1}}": "half a character is no text",
}
"""Parts of the rows that stay as they are although Go renders them, and why."""


def render(text: str, labels: Mapping[str, str]) -> str:
    return LabelTemplates(labels).render(text)


@pytest.mark.parametrize("row", GO["rows"], ids=lambda row: row["text"])
def test_go_says_the_same(row: dict[str, Any]) -> None:
    text, result = row["text"], row["result"]
    rendered = render(text, GO["labels"])
    if any(part in text for part in OTHERWISE) and result is not None:
        assert rendered == text
    else:
        assert rendered == (text if result is None else result)


def test_every_exception_is_needed() -> None:
    texts = [row["text"] for row in GO["rows"] if row["result"] is not None]
    assert all(any(part in text for text in texts) for part in OTHERWISE)


@given(st.text(alphabet="{}.ab \"'|()-/*ifelsendwith%", max_size=40), LABELS)
@example("{{" * 500 + "}}" * 500, {})
@example("{{if .a}}" * 200 + "{{end}}" * 200, {"a": "b"})
@example("{{" + "(" * 500 + ".a" + ")" * 500 + "}}", {"a": "b"})
@example('{{printf "%s %d %v %q" .a 1 true .b}}', {"a": "b"})
def test_any_text_renders_to_a_text(text: str, values: dict[str, str]) -> None:
    rendered = render(text, values)
    assert isinstance(rendered, str)
    if "{{" not in text:
        assert rendered == text


@given(LABELS)
def test_a_field_is_its_label(values: dict[str, str]) -> None:
    assert render("<{{.a}}>", values) == f"<{values.get('a', NO_VALUE)}>"
    assert render('{{ index . "a" }}', values) == values.get("a", "")


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{if .a}}yes{{else if .b}}b{{else}}no{{end}}", "yes"),
        ("{{if .z}}yes{{else if .b}}b{{else}}no{{end}}", "b"),
        ("{{if .z}}yes{{end}}", ""),
        ("{{with .a}}{{.}}{{end}}", "x"),
        ("{{with .z}}{{.}}{{else}}none{{end}}", "none"),
        ('{{if eq .a "x" "y"}}1{{end}}{{if ne .a .b}}2{{end}}', "12"),
        ("{{if and .a .b}}1{{end}}{{if or .z .b}}2{{end}}{{if not .z}}3{{end}}", "123"),
        ("{{if lt 1 2}}1{{end}}{{if gt .b .a}}2{{end}}{{if le 2 2}}3{{end}}{{if ge 1 2}}4{{end}}", "123"),
        ('{{.a | printf "%s-%s" .b}}', "y-x"),
        ("{{(.a)}}", "x"),
        ('{{printf "%q %v %d%%" .a .b 3}}', '"x" y 3%'),
        ("{{print .a 1 2 .b}}", "x1 2y"),
        ("{{println .a 1}}", "x 1\n"),
        ("{{len .a}}{{len .}}", "12"),
        ("{{.}}", "map[a:x b:y]"),
        ("{{true}} {{`raw`}} {{-1}}", "true raw -1"),
        ("a {{- /* gone */ -}} b", "ab"),
        ("a{{.a -}}  b", "axb"),
        ('{{printf "%5s|%-3s|%.39s" .a .b .a}}', "    x|y  |x"),
        # What Go refuses, or cannot run, stays as it is.
        ("{{.a.b}}", "{{.a.b}}"),
        ('{{.a"x"}}', '{{.a"x"}}'),
        ("{{end}}", "{{end}}"),
        ("{{if .a}}", "{{if .a}}"),
        ("{{else}}", "{{else}}"),
        ("{{range .}}{{end}}", "{{range .}}{{end}}"),
        ("{{.a .b}}", "{{.a .b}}"),
        ("{{.a | .b}}", "{{.a | .b}}"),
        ("{{(.a}}", "{{(.a}}"),
        ("{{printf .z}}", "{{printf .z}}"),
        ('{{printf "%d" .a}}', '{{printf "%d" .a}}'),
        ('{{printf "%s"}}', '{{printf "%s"}}'),
        ('{{printf "x" .a}}', '{{printf "x" .a}}'),
        ('{{printf "%5q" 1}}', '{{printf "%5q" 1}}'),
        ("{{index .a 1}}", "{{index .a 1}}"),
        ("{{len 1}}", "{{len 1}}"),
        ("{{eq .a}}", "{{eq .a}}"),
        ("{{ne .a}}", "{{ne .a}}"),
        ("{{lt .a 1}}", "{{lt .a 1}}"),
        ("{{lt true false}}", "{{lt true false}}"),
        ("{{not}}{{and}}", "{{not}}{{and}}"),
        ('{{"\\x"}}', '{{"\\x"}}'),
        ("{{with .a}}{{.b}}{{end}}", "{{with .a}}{{.b}}{{end}}"),
    ],
)
def test_what_peers_write(text: str, rendered: str) -> None:
    assert render(text, {"a": "x", "b": "y"}) == rendered


@dataclass(frozen=True)
class Written:
    """A piece of a template, what it means over labels, and whether it is a text."""

    text: str
    value: str | bool | None


def _quoted(value: str) -> str:
    return json.dumps(value)


OVER: dict[str, str] = {"a": "x", "b": "", "c": "y-z"}


def _show(value: str | bool | None) -> str:
    return NO_VALUE if value is None else str(value).lower() if isinstance(value, bool) else value


def _operands() -> st.SearchStrategy[Written]:
    literals = st.text(st.sampled_from('ab {}%"\\é'), max_size=6)
    leaves = st.one_of(
        st.sampled_from("abcd").map(lambda name: Written(f".{name}", OVER.get(name))),
        st.sampled_from("abcd").map(lambda name: Written(f"$.{name}", OVER.get(name))),
        st.sampled_from("abcd").map(lambda name: Written(f'(index . "{name}")', OVER.get(name, ""))),
        literals.map(lambda text: Written(_quoted(text), text)),
        literals.map(lambda text: Written(f"`{text}`", text)),
        st.booleans().map(lambda value: Written(str(value).lower(), value)),
    )

    def within(inner: st.SearchStrategy[Written]) -> st.SearchStrategy[Written]:
        def equal(a: Written, b: Written) -> Written:
            return Written(f"(eq {a.text} {b.text})", a.value == b.value)

        texts = inner.filter(lambda it: isinstance(it.value, str))
        return st.one_of(
            inner.map(lambda it: Written(f"(not {it.text})", not it.value)),
            st.tuples(inner, inner).map(
                lambda two: Written(f"(and {two[0].text} {two[1].text})", two[0].value and two[1].value)
            ),
            st.tuples(inner, inner).map(
                lambda two: Written(f"({two[1].text} | or {two[0].text})", two[0].value or two[1].value)
            ),
            st.tuples(texts, texts).map(lambda two: equal(*two)),
            st.tuples(texts, texts).map(
                lambda two: Written(f'(printf "%s/%s" {two[0].text} {two[1].text})', f"{two[0].value}/{two[1].value}")
            ),
        )

    return st.recursive(leaves, within, max_leaves=6)


def _documents() -> st.SearchStrategy[Written]:
    plain = st.text(st.sampled_from("ab.- \n}"), max_size=5).map(lambda text: Written(text, text))
    shown = st.tuples(st.sampled_from((" ", "", "\n ")), _operands()).map(
        lambda two: Written(f"{{{{{two[0]}{two[1].text} }}}}", _show(two[1].value))
    )
    trimmed = _operands().map(lambda it: Written(f"({{{{- {it.text} -}}}})", f"({_show(it.value)})"))
    comments = st.just(Written("{{/* {{ }} */}}", ""))

    def branches(inner: st.SearchStrategy[Written]) -> st.SearchStrategy[Written]:
        def branch(parts: tuple[Written, Written, Written, Written, Written]) -> Written:
            first, then, second, other, last = parts
            text = f"{{{{if {first.text}}}}}{then.text}{{{{else if {second.text}}}}}{other.text}{{{{else}}}}{last.text}"
            chosen = then if first.value else other if second.value else last
            return Written(text + "{{end}}", chosen.value)

        def together(parts: list[Written]) -> Written:
            return Written("".join(it.text for it in parts), "".join(_show(it.value) for it in parts))

        return st.one_of(
            st.tuples(_operands(), inner, _operands(), inner, inner).map(branch),
            st.lists(inner, max_size=3).map(together),
            st.tuples(_operands(), inner).map(
                lambda two: Written(
                    f"{{{{ $v := {two[0].text} }}}}{{{{ $v }}}}{two[1].text}", _show(two[0].value) + _show(two[1].value)
                )
            ),
        )

    return st.recursive(st.one_of(plain, shown, trimmed, comments), branches, max_leaves=5)


@given(_documents())
@example(Written("{", "{"))
def test_a_template_means_what_its_parts_mean(document: Written) -> None:
    # Longer ones have more parts than a peer may send.
    assume(len(document.text) <= 200)
    # A brace of the text beside one of an action would make another action of it.
    if "{{{" in document.text or "}{{" in document.text.replace("}}{{", "") or "`{" in document.text:
        reject()
    assert render(document.text, OVER) == document.value
    values = {**OVER, "d": ""}
    ours = Template(document.text, values)
    assert ours.render(values) == Template(document.text, values, jinja=False).render(values)


CONNECTION = Connection(
    id="c-1",
    network_service="vl3@floating.domain",
    labels={"podName": "alpine-1", "clusterName": "c1", "copy": "label"},
    mechanism=Mechanism(cls="LOCAL", type="KERNEL"),
    context=ConnectionContext(ip_context=IPContext(src_ip_addrs=["10.0.0.1/32", "fd00::1/128"])),
)
FIELDS = connection_fields(CONNECTION)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ('{{ index .Labels "podName" }}.{{ .NetworkService }}.', "alpine-1.vl3@floating.domain."),
        ('{{ index .Labels "none" }}.{{ target .NetworkService }}.', ".vl3."),
        ("{{ .Labels.podName }}{{ .Labels.none }}", "alpine-1"),
        ("{{ .NetworkService | domain }}", "floating.domain"),
        ("{{ .GetId }} {{ .Mechanism.Type }} {{ index .Context.IpContext.SrcIpAddrs 1 }}", "c-1 KERNEL fd00::1/128"),
        ("{{ .workloadName }}.{{ .clusterName }}.{{ .networkService | target }}", "alpine-1.c1.vl3"),
        ("{{ if .Labels.none }}a{{ else if eq .Mechanism.Type `KERNEL` }}b{{ end }}", "b"),
        (
            "{{ workloadName }}.{{ networkService | target }}.{{ domain(networkService) }}",
            "alpine-1.vl3.floating.domain",
        ),
        ("{{ labels.copy }}{{ labels['none'] }}{{ labels.none | default('x', true) }}", "labelx"),
        ("{% if labels.none %}a{% elif mechanism.type == 'KERNEL' %}b{% endif %}", "b"),
        (
            "{% for a in context.ip_context.src_ip_addrs %}{{ loop.index }}:{{ a }} {% endfor %}",
            "1:10.0.0.1/32 2:fd00::1/128 ",
        ),
        ("{{ not labels.none and id == 'c-1' }}", "True"),
        ("{% set n = id ~ '-' ~ 1 %}{{ n | upper | replace('-', '_') }}\n", "C_1_1\n"),
        ("no template, {# no comment #}, 100 %}", "no template, {# no comment #}, 100 %}"),
        ("${#ARGS} {{ .Id }}", "${#ARGS} c-1"),
        ("{{- /* only a comment */ -}}", ""),
    ],
)
def test_our_own_configuration(text: str, rendered: str) -> None:
    assert Template(text, FIELDS).render(FIELDS) == rendered


def test_a_template_is_rendered_over_other_values_of_the_same_names() -> None:
    template = Template("{{ .workloadName }}.{{ target .NetworkService }}", FIELDS)
    other = Connection(network_service="svc", labels={"workloadName": "redis", "podName": "p"})
    assert template.render(connection_fields(other)) == "redis.svc"
    assert template.render(connection_fields(Connection())) == "."


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("{{ .Labls }}", 1, 4, "do you mean Labels?"),
        ("one\n two {{ .Nothing }}", 2, 9, "no 'Nothing' here; there is"),
        ("{{ .Mechanism.Typ }}", 1, 4, "do you mean Type?"),
        ("{{ if .Id }}{{ .Labls }}{{ end }}", 1, 16, "Labels"),
        ("{{ if not .Id }}{{ .Labls }}{{ end }}", 1, 20, "Labels"),
        ("{{ if not .Id }}{{ eq .Id }}{{ end }}", 1, 20, "1 arguments"),
        ("x\n\n{{ .Id", 3, 1, "not closed"),
        ("{{ if .Id }}x", 1, 14, "before {{ end }}"),
        ("{{ .Id }}{{ end }}", 1, 13, "unexpected 'end'"),
        ('{{ .Id }}\n{{ index Labels "x" }}', 2, 10, "write .Labels"),
        ("{{ nothing .Id }}", 1, 4, "'nothing' is not known"),
        ("{{ range .Labels }}{{ end }}", 1, 4, "Jinja's spelling has loops"),
        ("{{ $x }}{{ .Id }}", 1, 4, "$x is not known"),
        ("{{ .Id }}\n{{ eq .Id 1 }}", 2, 4, "cannot be compared"),
        ("{{ index .Context.IpContext.SrcIpAddrs 7 }}", 1, 4, "out of range"),
        ('{{ .Id | printf "%d" }}', 1, 4, "%d does not fit a text"),
        ("{{ Labls }}", 1, 4, "do you mean Labels?"),
        ("a\n  {{ mechanism.typ }}", 2, 16, "do you mean type?"),
        ("{{ id | nothing }}", 1, 9, "filter 'nothing'"),
        ("{% if id is nothing %}{% endif %}", 1, 13, "test 'nothing'"),
        ("{{ id }}\n  {{ id | }}", 2, 11, "end of print statement"),
        ("{% if id %}", 1, 12, "end of template"),
        ("{% if id }}{% endif %}", 1, 10, "unexpected '}'"),
        ("x\n{{ 1 // 0 }}", 2, 1, "ZeroDivisionError"),
        ("{{ id }}\n\n {{- id }}{% if id %} {{ id }} {{- 7 % 0 }}{% endif %}{{ id }}", 3, 32, "ZeroDivisionError"),
        ("{% if id %}{{ id }}{% endif %}\n{% if 1 // 0 %}{% endif %}", 2, 1, "ZeroDivisionError"),
        ("{{ id.upper() }}", 1, 1, "no 'upper'"),
        ("{{ id.__class__ }}", 1, 1, "no '__class__'"),
        ("{% include 'x' %}", 1, 4, "not allowed"),
        ("{% macro a() %}{% endmacro %}", 1, 4, "not allowed"),
        ("{% set x %}{% endset %}", 1, 1, "not allowed"),
    ],
)
def test_an_error_of_our_own_configuration_has_its_place(text: str, line: int, column: int, says: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(text, FIELDS)
    assert (caught.value.line, caught.value.column) == (line, column), caught.value
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"line {line}, column {column}: ")


def test_what_fails_over_other_values_has_its_place_too() -> None:
    template = Template("{{ .name }}\n{{ index .addresses 1 }}", {"name": "n", "addresses": ["a", "b"]})
    with pytest.raises(TemplateError, match="line 2, column 4: index out of range"):
        template.render({"name": "n", "addresses": ["a"]})
    with pytest.raises(TemplateError, match="no 'name'"):
        template.render({"addresses": ["a", "b"]})


BOMBS = [
    "{{ 'x' * 10 ** 9 }}",
    "{{ 'x' * 1000000000 }}",
    "{{ [0] * 1000000000 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ range(1000000000) | list }}",
    "{{ range(1001) | list }}",
    "{% for a in range(999) %}" * 3 + "{% endfor %}" * 3,
    "{% set a = 'x' %}" + "{% set a = a ~ a %}" * 40,
    "{% set a = 'x' %}" + "{% set a = a + a %}" * 40,
    "{% set a = 'x' %}" + "{% set a = [a, a] | join(a) %}" * 40,
    "{% set a = 'x' %}" + "{% set a = a | replace('x', 'xxxxxxxxxx') %}" * 40,
    "{% set a = 2 %}" + "{% set a = a * a %}" * 40,
    "{% for a in range(1000) %}{% for b in range(1000) %}x{% endfor %}{% endfor %}",
    "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{{ 'x'.format() }}",
    "{{ printf `%9999999s` .a }}",
    "{{ $a := .a }}" + "{{ $a = print $a $a }}" * 40,
    "{{ .a }}" * 10_000,
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "- " * 3000 + "1 }}",
    "{% if a %}" * 500 + "{% endif %}" * 500,
    "x" * LONGEST_OF_OURS + "{{ .a }}",
]


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_our_own_configuration_is_bounded_too(bomb: str) -> None:
    with pytest.raises(TemplateError):
        Template(bomb, {"a": "x" * 1000})


@given(st.text(st.sampled_from("{}%#.$|()'\"`-= \nabif01endforsetin*+~,[]:é"), max_size=60))
@example("{{}}{%")
@example("{% raw %}{{")
@example("{{ '\\x' }}")
def test_any_text_of_our_own_is_rendered_or_refused_with_its_place(text: str) -> None:
    values = {"a": "x", "b": {"c": "y"}, "f": ["z"]}
    for jinja in (True, False):
        refused = None
        try:
            assert isinstance(Template(text, values, jinja=jinja).render(values), str)
        except TemplateError as error:
            refused = error
        assert refused is None or 1 <= refused.line <= text.count("\n") + 1
        assert refused is None or 1 <= refused.column <= len(text) + 1


@pytest.mark.parametrize(
    "text", ["{% for a in a %}{{ a }}{% endfor %}", "{{ a }}", "{{ a | upper }}", "{{ 'x' ~ 'y' }}"]
)
def test_a_peer_cannot_use_the_other_spelling(text: str) -> None:
    assert render(text, {"a": "x"}) == text
    if "{{" in text:
        with pytest.raises(TemplateError):
            Template(text, {"a": "x"}, jinja=False)


def test_no_text_of_a_peer_becomes_code() -> None:
    for text in ('{{ "a\\" }}{{ .x | __import__ }}" }}', "{{ `}}{% for x in y %}` }}", "{{ `' + 1 + '` }}"):
        assert render(text, {}) in ('a" }}{{ .x | __import__ }}', "}}{% for x in y %}", "' + 1 + '")


def test_one_choice_compiles_so_many_shapes_and_no_more() -> None:
    templates = LabelTemplates({"a": "x"})
    texts = ["{{ .a }}" * number for number in range(1, 100)]
    rendered = [templates.render(text) for text in texts]
    done = sum(made == "x" * number for number, made in enumerate(rendered, 1))
    assert 5 < done < 50
    assert rendered[done:] == texts[done:]
    # Texts of one shape are compiled once, however many there are.
    templates = LabelTemplates({"a": "x"})
    assert [templates.render(f"{{{{ .a }}}}-{number}") for number in range(1000)][-1] == "x-999"


def test_a_long_text_of_a_peer_stays_as_it_is() -> None:
    assert render("{{ .a }}" + "x" * LONGEST, {"a": "y"}) == "{{ .a }}" + "x" * LONGEST


def test_closed_maps_within_open_ones() -> None:
    fields = {"node": Closed({"name": "n"}), "labels": {"a": "b"}}
    assert Template("{{ .node.name }}{{ .labels.z }}", fields).render(fields) == "n"
    with pytest.raises(TemplateError, match="do you mean name"):
        Template("{{ .node.nam }}", fields)
    with pytest.raises(TemplateError, match="do you mean name"):
        Template("{{ node.nam }}", fields)


def test_jinja_is_imported_when_the_first_template_is_met() -> None:
    code = "import sys, nsm_sdk, nsm_sdk.registry, nsm_sdk.mechanisms; print('jinja2' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
