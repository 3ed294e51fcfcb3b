use super::*;

fn user(content: &str) -> [ChatMessage; 1] {
    [ChatMessage {
        role: "user".into(),
        content: content.into(),
    }]
}

/// The text of a template, or `! ` and its error.
fn rendered(text: &str) -> String {
    let rendered = ChatTemplate::new(text.to_owned(), Vec::new(), "t")
        .and_then(|template| template.render(&user("x"), None));
    rendered.unwrap_or_else(|error| format!("! {error}"))
}

#[test]
fn a_template_sees_turns_and_special_tokens() {
    let text = "{% set loop_messages = messages %}\n{% for message in loop_messages %}\n\
        {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}\n\
        {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}\
        {{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}";
    let specials = vec![("bos_token".to_owned(), "<s>".to_owned())];
    let template = ChatTemplate::new(text.to_owned(), specials, "t").unwrap();
    assert_eq!(
        template.render(&user(" Hi "), None).unwrap(),
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

#[test]
fn python_methods_and_switches_work() {
    let text = "{{ messages[0].content.strip().startswith('a') }}{% if enable_thinking is defined and enable_thinking is false %}!{% endif %}";
    let template = ChatTemplate::new(text.to_owned(), Vec::new(), "t").unwrap();
    let said = |thinking| template.render(&user("  ab "), thinking).unwrap();
    assert_eq!(said(None), "True");
    assert_eq!(said(Some(false)), "True!");
}

#[test]
fn bad_templates_are_errors() {
    let error = ChatTemplate::new("{% for %}".into(), Vec::new(), "some.json").unwrap_err();
    assert!(error.to_string().starts_with("some.json:"), "{error}");
    assert!(
        rendered("\n{{ raise_exception('no system turn') }}").contains("line 2: no system turn")
    );
    for text in [
        "{{ messages.append(1) }}",
        "{{ messages[0].update({}) }}",
        "{{ 'x'.__class__.__mro__ }}",
        "{{ ''.format.__globals__.x }}",
        "{{ '{0.__class__.x}'.format('x') }}",
        "{{ nothing.at.all }}",
        "{{ 1 + 'x' }}",
        "{{ 1 // 0 }}",
        "{{ 9223372036854775807 + 1 }}",
        "{{ [1]|tojson(indent=99999999999) }}",
        "{{ 'x'|unheard }}",
        "{% include 'other' %}",
    ] {
        assert!(
            rendered(text).starts_with("! t: the chat template failed: "),
            "{text}"
        );
    }
}

#[test]
fn generation_blocks_print_what_they_hold() {
    let text = "a\n  {%- generation -%}  b{% set x = 1 %}{% endgeneration %}\n{{ x is defined }}{% raw %}{% generation %}{% endraw %}";
    assert_eq!(rendered(text), "abFalse{% generation %}");
}

/// No template takes longer than seconds or more than a few hundred megabytes.
#[test]
fn every_operation_has_a_bound() {
    let twice = |step: &str| {
        format!(
            "{{% set n = namespace(s='x', l=[1], d=dict()) %}}{{% for i in range(200) %}}{{% set n.s = {step} %}}{{% endfor %}}{{{{ n.s|length }}}}"
        )
    };
    for text in [
        twice("n.s ~ n.s"),
        twice("n.s + n.s"),
        twice("n.s * 2"),
        twice("n.s|replace('x', 'xx')"),
        twice("(n.s, n.s)|join"),
        twice("'%s%s'|format(n.s, n.s)"),
        twice("'{0}{0}'.format(n.s)"),
        twice("n.s.join([n.s, n.s, n.s])"),
        twice("n.s.replace('', n.s)"),
        twice("n.s|indent(n.s|length, true)"),
        twice("[n.s, n.s]|string"),
        twice("[n.s, n.s]|tojson"),
        twice("n.s|map('upper')|list + n.s|list"),
        twice("[n.s]"),
        "{{ 'x' * 9999999999 }}".to_owned(),
        "{{ [1] * 9999999999 }}".to_owned(),
        "{{ ('x' * 1000000)|replace('x', 'y' * 10000)|length }}".to_owned(),
        "{{ '%9999999999d' % 1 }}".to_owned(),
        "{{ '{:>9999999999}'.format('x') }}".to_owned(),
        "{{ 'x'|center(9999999999) }}".to_owned(),
        "{{ 'x'.ljust(9999999999) }}".to_owned(),
        "{{ 'x'|indent(9999999999, true) }}".to_owned(),
        "{{ range(9999999999) }}".to_owned(),
        "{{ [1]|batch(9999999999, 0) }}".to_owned(),
        "{{ [1]|slice(9999999999) }}".to_owned(),
        "{{ 9 ** 9999999999 }}".to_owned(),
        "{{ '%.9999999999f' % 1.5 }}".to_owned(),
        "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}".to_owned(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% set s = 'ab' * 100000 %}{% for i in range(100000) %}{{ s.count('ba') }}{% endfor %}".to_owned(),
        "{% set s = 'ab' * 100000 %}{% for i in range(100000) %}{{ 'c' in s }}{% endfor %}".to_owned(),
        "{% set l = range(100000)|list %}{{ l|unique|length }}".to_owned(),
        "{% set l = range(100000)|list %}{% for i in l %}{{ l == l }}{% endfor %}".to_owned(),
        format!("{{{{ {}1 }}}}", "1 - ".repeat(2000)),
        format!("{{{{ x{} }}}}", "|string".repeat(3000)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(2000)),
        "x".repeat(2 << 20),
    ] {
        let found = rendered(&text);
        let shown = &text[..text.len().min(90)];
        assert!(found.starts_with("! t: the chat template failed: "), "{shown}: {}", &found[..found.len().min(90)]);
        assert!(found.len() < 300, "{shown}: {} bytes", found.len());
    }
}

#[test]
fn ordinary_long_conversations_fit() {
    let text = "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s ~ '<' ~ m.role ~ '>' ~ m.content.strip() ~ '\n' %}{% endfor %}{{ ns.s }}";
    let template = ChatTemplate::new(text.to_owned(), Vec::new(), "t").unwrap();
    let turns = vec![user(&"words ".repeat(500)).to_vec(); 200].concat();
    assert_eq!(
        template.render(&turns, None).unwrap().len(),
        200 * (7 + 2999)
    );
}

#[test]
fn the_clock_is_read() {
    let template = ChatTemplate {
        clock: || jiff::civil::date(2024, 7, 4).at(8, 5, 0, 0),
        ..ChatTemplate::new(
            "{{ strftime_now('%d %b %Y, %-H:%M%Z') }}".into(),
            Vec::new(),
            "t",
        )
        .unwrap()
    };
    assert_eq!(
        template.render(&user("x"), None).unwrap(),
        "04 Jul 2024, 8:05"
    );
    assert!(rendered("{{ strftime_now('%Q') }}").contains("strftime_now"));
}

#[test]
fn several_templates_are_told_apart() {
    let settings = serde_json::json!({"chat_template": [
        {"name": "rag", "template": "rag"}, {"name": "default", "template": "plain"}]});
    let mut templates = ChatTemplates::new();
    templates.add_settings(&settings, "c.json").unwrap();
    let text = |name| {
        let template = templates.open(name, Vec::new()).unwrap().unwrap();
        template.render(&user("x"), None).unwrap()
    };
    assert_eq!(
        (text(None), text(Some("rag"))),
        ("plain".to_owned(), "rag".to_owned())
    );
    let error = templates
        .open(Some("tool_use"), Vec::new())
        .unwrap_err()
        .to_string();
    assert!(error.contains("rag, default"), "{error}");
    let mut files = ChatTemplates::new();
    files.add_file(Some("rag"), "x".into(), "rag.jinja");
    files.add_settings(&settings, "c.json").unwrap();
    assert!(
        files.open(None, Vec::new()).is_err(),
        "files come first, and none is the default"
    );
    assert!(
        ChatTemplates::new()
            .open(None, Vec::new())
            .unwrap()
            .is_none()
    );
    let bad = serde_json::json!({"chat_template": [{"name": "x"}]});
    assert!(ChatTemplates::new().add_settings(&bad, "c.json").is_err());
}

/// `reference/chat_templates.py`.
#[test]
fn everything_is_rendered_as_transformers_does() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/chat_templates/cases.json"
    );
    let document: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let specials: Vec<(String, String)> =
        serde_json::from_value::<std::collections::BTreeMap<_, _>>(document["specials"].clone())
            .unwrap()
            .into_iter()
            .collect();
    let cases = document["cases"].as_array().unwrap();
    assert!(cases.len() > 300);
    let mut wrong = Vec::new();
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap();
        let turns = document["conversations"][text("conversation")]
            .as_array()
            .unwrap();
        let turns: Vec<ChatMessage> = turns
            .iter()
            .map(|turn| ChatMessage {
                role: turn["role"].as_str().unwrap().to_owned(),
                content: turn["content"].as_str().unwrap().to_owned(),
            })
            .collect();
        let made = ChatTemplate::new(text("template").to_owned(), specials.clone(), "t").and_then(
            |template| {
                let template = ChatTemplate {
                    clock: || jiff::civil::date(2024, 7, 4).at(8, 5, 9, 0),
                    ..template
                };
                template.render(&turns, None)
            },
        );
        let fits = match (&made, case.get("error")) {
            (Ok(made), None) => made == text("text"),
            (Err(_), Some(_)) => true,
            _ => false,
        };
        if !fits {
            let wanted = case.get("error").unwrap_or(&case["text"]);
            wrong.push(format!(
                "{}:\n  wanted {wanted}\n  made   {made:?}",
                text("name")
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
