"""Goldens of chat templates: what transformers makes of them, or that it refuses them.

    python reference/chat_templates.py

Writes fixtures/chat_templates/cases.json: templates of the kinds that models are published with, and one expression a case for what
such templates use of Python and Jinja. `text` is the rendered conversation, `error` the kind of exception.
"""

import datetime
import json
from pathlib import Path

from transformers.utils import chat_template_utils

OUT = Path(__file__).parent.parent / "fixtures" / "chat_templates"
NOW = datetime.datetime(2024, 7, 4, 8, 5, 9)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Clock

CONVERSATIONS = {
    "question": [("user", "  What is 2 + 2?\n")],
    "turns": [("system", "Be brief."), ("user", "Hi <there> & \"you\""), ("assistant", "<think>\nhm\n</think>\n\nHello!"), ("user", "é 🚀?")],
}
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}

# Written for this file in the manner of the published ones.
TEMPLATES = {
    "headers": """{% set loop_messages = messages %}
{% for message in loop_messages %}
    {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>

'+ message['content'] | trim + '<|eot_id|>' %}
    {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}
    {{ content }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>

' }}{% endif %}
""",
    "marks": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}{{- tools | tojson }}{{- '<|im_end|>\\n' }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}{%- for call in message.tool_calls %}{{- call.name }}{%- endfor %}{%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}""",
    "instructions": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("After the optional system message, conversation roles must alternate user and assistant") }}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {% generation %}{{- " " + message["content"]|trim + eos_token }}{% endgeneration %}
    {%- endif %}
{%- endfor %}
""",
    "turn_names": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}""",
    "dated": """{%- set date_string = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}
{%- macro block(role, text, sep='\\n') -%}
<{{ role }}>{{ sep }}{{ text }}{{ sep }}{% if caller %}{{ caller() }}{% endif %}</{{ role }}>
{%- endmacro -%}
Today Date: {{ date_string }}
{{ block('system', 'You are ' ~ 'helpful') }}
{% for m in messages if m.role != 'system' %}
{% call block(m.role, m.content|trim, sep=' ') %}({{ loop.index }} of {{ loop.length }}){% endcall %}
{% if not loop.last %}{% continue %}{% endif %}
END {{ m.role | upper }}
{% endfor %}
""",
    "blank_lines": "{% for m in messages %}\n\n  {% if m.role %}  \n{{ m.role }}:  \n  {%- endif +%}\n\t{# note #}\n{{- m.content }}\n{% endfor %}\n\n",
    "generation": "{% for m in messages -%}\n  {% if m.role == 'assistant' %}\n  {%- generation -%}\n  {{ m.content }}\n  {%- set inside = 1 -%}\n  {%- endgeneration %}\n{{ inside is defined }}\n  {% else %}{{ m.role }}: {{ m.content }}\n  {% endif %}\n{% endfor %}",
}

# What a template may compute; each is printed as {{ … }}.
EXPRESSIONS = r"""
true
none
[true, none, 1.0, 'a', "it's", 'q"', {'k': [1, 2]}]
{'a': 1, 'b': none, 1: 'c', true: 2}
nothing
nothing.more
nothing is defined
nothing == none
nothing or 'x'
messages[9] is defined
messages[0].missing
messages[0].missing is none
messages[0]['role'].upper()
tools is none
documents
1 + 2 * 3 - 4 / 2
7 // 2
-7 // 2
-7 % 3
7 % -3
2 ** 10
2 ** -1
7.5 // 2
1e16
1.5e-7 * 1
100000000000000000000.0
10 / 4
1 / 3
true + 1
'a' * 3
[1] * 2 + [3]
'a' ~ 1 ~ none ~ 1.5 ~ true
'%s is %d years and %.2f%%' % ('x', 3, 1.5)
'%5s|%-5s|%05d|%+d|%x' % ('a', 'b', 42, 7, 255)
'%s' % 'x'
'%s-%s'|format('a', 1)
'%(a)s' % {'a': 5}
'{} {}'.format('a', 1)
'{1}{0!r:>5}{name}'.format('a', 'b', name='n')
'{:05.1f}|{:<4}|{:^5}|{:>4}|{:,}'.format(3.14159, 'a', 'b', 'c', 1234567)
'{0.role}-{0[content]}'.format(messages[0])
'{{}}'.format()
'a' < 'b' < 'c'
1 < 2 and 2 < 1 or 'last'
not 1 in [1]
'x' not in 'abc'
'b' in 'abc'
'role' in messages[0]
2 in (1, 2)
'a' if 1 else 'b'
'a' if 0
1 == 1.0
'1' == 1
[1, 2] == [1, 2]
'abc'[1]
'abc'[-1]
'abcdef'[1:4]
'abcdef'[::-1]
'abcdef'[-2:]
'abcdef'[::2]
[1, 2, 3, 4][1:-1]
[1, 2, 3, 4][::-2]
'abc'[9] is defined
'a b  c'.split()
'a,b,,c'.split(',')
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
' a b '.split(' ')
'abc'.split('b')[0]
'  x '.strip() ~ '|'
'xxaxx'.strip('x')
'xya'.lstrip('xy')
'axy'.rstrip('yx')
'abcabc'.replace('b', 'X')
'abcabc'.replace('b', 'X', 1)
'ab'.replace('', '-')
'x'.count('')
'aaa'.count('aa')
'abc'.find('c')
'abc'.find('z')
'abcabc'.rfind('b')
'äöü'.find('ü')
'abc'.index('b')
'abc'.index('z')
'a-b'.partition('-')
'a-b-c'.rpartition('-')
'ab'.partition('-')
'abc'.startswith('ab')
'abc'.startswith(('x', 'a'))
'abc'.endswith('bc')
'abc'.startswith('b', 1)
'Hello World'.lower() ~ 'x'.upper()
'hello wORLD'.title()
'hello wORLD'.capitalize()
'hello wORLD'.swapcase() if false else ''
"they're bill's".title()
'ab12'.isalnum()
'12'.isdigit()
'a1'.isalpha()
'AB'.isupper()
' '.isspace()
''.isspace()
'a\nb\r\nc'.splitlines()
'a\nb\n'.splitlines(true)
','.join(['a', 'b'])
','.join([1])
'ab'.center(7, '*')
'ab'.center(6) ~ '|'
'ab'.center(5) ~ '|'
'ab'.ljust(4) ~ '|' ~ 'ab'.rjust(4, '0')
'7'.zfill(3) ~ '-7'.zfill(4)
'a\tb'.expandtabs(4)
'prefix-x'.removeprefix('prefix-')
'x.txt'.removesuffix('.txt')
'ß'.upper()
'x'.items() if false else 'ok'
{'a': 1}.items()|list
{'a': 1, 'b': 2}.keys()|list
{'a': 1, 'b': 2}.values()|list
{'a': 1}.get('a') ~ {'a': 1}.get('b') ~ {'a': 1}.get('b', 3)
{'items': 5}['items']
[3, 1, 2].index(1)
[1, 1, 2].count(1)
[1].append(2)
{}.update({'a': 1})
[1, 2].copy()
dict(a=1, b='x')
dict([('a', 1)], b=2)
range(3)|list
range(5, 0, -2)|list
range(1000001)|length
'abc'|length
[1, 2]|length
messages|length
nothing|length
'abc'|first ~ 'abc'|last
[]|first is defined
[1, 2, 3]|last
[3, 1, 2]|sort
['b', 'A', 'c']|sort
['b', 'A', 'c']|sort(case_sensitive=true)
['b', 'A', 'c']|sort(reverse=true)
[{'n': 2}, {'n': 1}]|sort(attribute='n')
[1, 2, 3]|reverse|list
'abc'|reverse
[1, 2]|join
[1, 2]|join(', ')
messages|map(attribute='role')|join('|')
messages|map('length')|list
['a', 'b']|map('upper')|join
['x', 'y']|map('replace', 'x', 'z')|list
messages|selectattr('role', 'equalto', 'user')|list|length
messages|rejectattr('role', 'eq', 'user')|map(attribute='role')|list
[0, 1, 2, 3]|select('odd')|list
[0, 1, none, 'a']|select|list
[1, 2, 3]|reject('gt', 1)|list
[1, 2, 2, 1]|unique|list
[1, 2, 3]|sum
[{'v': 1}, {'v': 2}]|sum(attribute='v')
[3, 1]|min ~ [3, 1]|max
[1, 2, 3, 4, 5]|batch(2)|list
[1, 2, 3, 4, 5]|batch(2, 'x')|list
[1, 2, 3, 4, 5]|slice(2)|list
{'b': 1, 'a': 2}|dictsort
{'b': 1, 'a': 2}|items|list
[('x', 1), ('x', 2)]|map('first')|list
nothing|default('d')
''|default('d')
''|default('d', true)
none|d('x')
'x'|default('d')
'  x '|trim ~ '|'
'xax'|trim('x')
'a b'|title
"foo-bar (baz) it's"|title
'hELLO'|capitalize
'hello'|upper|lower
'aXa'|replace('a', 'b')
'aaa'|replace('a', 'b', 2)
'a\nb\n\nc'|indent
'a\nb'|indent(2, true)
'a\n\nb'|indent(2, blank=true)
'a\nb\n'|indent(1) ~ '|'
'a\nb'|indent('> ')
'3'|int + 1
'3.7'|int
'x'|int
'x'|int(5)
'ff'|int(base=16)
3.99|int
'1.5'|float
'x'|float
3|float
2.5|round
3.456|round(2)
2.4|round(0, 'ceil')
-3|abs
'a & <b>'|escape
'<b>'|safe
'a b&c/d'|urlencode
'one two  three'|wordcount
'a long sentence with words'|truncate(10)
'short'|truncate(10)
'a long sentence with words'|truncate(12, true, '…')
'x'|string ~ 1|string
[1, 'a']|string
'abc'|list
{'a': 1}|list
'ab'|center(6) ~ '|'
'x'|attr('upper') is callable
{'a': 1}|tojson
[1, 1.0, 'é', '<&>', none, true, {'b': [], 'a': {}}]|tojson
{'b': 1, 'a': [1, {'c': 2}]}|tojson(indent=2)
{'b': 1, 'a': 2}|tojson(sort_keys=true)
'é🚀'|tojson(ensure_ascii=true)
{'b': [1, 2]}|tojson(separators=(',', ':'))
{'b': [1, 2]}|tojson(indent=4, separators=(',', ':'))
"a\"b\\c\n\t\x07"|tojson
messages|tojson
nothing|tojson
{1: 2, none: 3}|tojson
1.5e300|tojson
'x' is string
1 is number and 1.5 is float and 1 is integer and true is boolean
{} is mapping and [] is sequence and 'x' is sequence
[] is iterable and 1 is not iterable
none is none and 1 is not none
4 is divisibleby 2
3 is odd and 4 is even
'abc' is in ['abc']
1 is eq 1 and 2 is gt 1
'x' is lower and 'X' is upper
true is true and false is false
messages is sameas messages
strftime_now('%Y-%m-%d %H:%M:%S')
strftime_now('%d %b %Y, %A %B %j')
strftime_now('%-d %I %p %y')
bos_token ~ eos_token ~ pad_token ~ unk_token
namespace(a=1).a
namespace({'a': 2}).a
namespace(_a=1)
'x'.__class__
messages[0].__class__
raise_exception('stop')
messages.nothing()
nothing()
1 + 'a'
'a' + 1
'a' + none
none + 1
1 < 'a'
none.x is defined
[1, 2].x is defined
5|length
'abc'|unheard
'abc' is unheard
'a' 'b'
(1, 2)|list
-3 + 2
[1, 2, 3]|map('string')|join('+')
[[1, 2], [3]]|map('sum')|list
'a.b'.split('.')|last
messages[-1]['content'].split('\n')[0]
messages[-1].content[:3]
""".strip().split("\n")

STATEMENTS = {
    "loop variables": "{% for x in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.cycle('o', 'e') }}{{ loop.previtem|default('-') }}{{ loop.nextitem|default('-') }} {% endfor %}",
    "loop changed": "{% for x in [1, 1, 2] %}{% if loop.changed(x) %}{{ x }}{% endif %}{% endfor %}",
    "loop else": "{% for x in [] %}a{% else %}b{% endfor %}",
    "loop filter": "{% for x in [1, 2, 3] if x != 2 %}{{ loop.index }}:{{ x }} {% endfor %}",
    "loop pairs": "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}",
    "loop recursive": "{% for x in [1, [2, 3]] recursive %}{% if x is number %}{{ loop.depth }}:{{ x }} {% else %}[{{ loop(x) }}]{% endif %}{% endfor %}",
    "loop scope": "{% set x = 0 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
    "loop if scope": "{% for i in [1, 2] %}{% if true %}{% set y = i %}{% endif %}{{ y }}{% endfor %}{{ y is defined }}",
    "break and continue": "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "namespace": "{% set ns = namespace(n=0, found=false) %}{% for i in [1, 2, 3] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{{ ns.found }}",
    "with": "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "set block": "{% set x %}a{{ 1 + 1 }}{% endset %}{{ x }}{{ x|length }}",
    "set block filter": "{% set x | upper | trim %} ab {% endset %}{{ x }}",
    "set tuple": "{% set a, b = 1, 'x' %}{{ a }}{{ b }}",
    "filter block": "{% filter upper %}ab{{ 'c' }}{% endfilter %}",
    "macro": "{% macro f(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, c='y') }} {{ f(a=3, b=4) }} {{ f() }}",
    "macro sees globals": "{% set g = 1 %}{% macro f() %}{{ g }}{{ x is defined }}{% endmacro %}{% for x in [1] %}{{ f() }}{% endfor %}",
    "macro varargs": "{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, k=4) }}",
    "macro recursion": "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "caller arguments": "{% macro f() %}<{{ caller(1) }}>{% endmacro %}{% call(x) f() %}{{ x + 1 }}{% endcall %}",
    "call splat": "{% macro f(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ f(*[1, 2]) }}{{ f(**{'a': 3, 'b': 4}) }}",
    "raw": "{% raw %}{{ x }}{% endraw %}",
    "comment": "a{# {{ x }} #}b",
    "block": "a{% block b %}c{% endblock %}d",
    "else if": "{% if false %}a{% elif none %}b{% elif 1 %}c{% else %}d{% endif %}",
    "white space": "a\n  {%- if true -%}  \n b \n  {%- endif %}\n  c  {{- ' d' -}}  \n e\n",
    "kept white space": "a\n  {%+ if true %}\nb\n  {%+ endif +%}\nc\n\n",
    "assign to a dict": "{% set d = {} %}{% set d.x = 1 %}",
    "unpack too many": "{% for a, b in [(1, 2, 3)] %}{% endfor %}",
    "loop over a number": "{% for a in 5 %}{% endfor %}",
    "unknown statement": "{% unheard %}",
    "open block": "{% if true %}",
    "break outside": "{% break %}",
    "do": "{% do messages %}",
    "include": "{% include 'x' %}",
}


def main():
    cases = []

    def add(name, template, conversation):
        messages = [{"role": role, "content": content} for role, content in CONVERSATIONS[conversation]]
        case = {"name": name, "template": template, "conversation": conversation}
        try:
            rendered, _ = chat_template_utils.render_jinja_template(
                conversations=[messages], chat_template=template, add_generation_prompt=True, **SPECIALS
            )
            case["text"] = rendered[0]
        except Exception as error:
            case["error"] = type(error).__name__
        cases.append(case)

    for name, template in TEMPLATES.items():
        for conversation in CONVERSATIONS:
            add(name, template, conversation)
    for expression in EXPRESSIONS:
        add(expression, "{{ " + expression + " }}", "turns")
    for name, template in STATEMENTS.items():
        add(name, template, "turns")
    OUT.mkdir(parents=True, exist_ok=True)
    document = {
        "now": NOW.isoformat(),
        "specials": SPECIALS,
        "conversations": {k: [{"role": r, "content": c} for r, c in v] for k, v in CONVERSATIONS.items()},
        "cases": cases,
    }
    (OUT / "cases.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
