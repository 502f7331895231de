use super::*;

fn model() -> Model {
    Model {
        name: "c".into(),
        namespace: "test".into(),
        target: "podinfo".into(),
        service: "podinfo".into(),
        interval: "1m".into(),
        variables: [("a".to_owned(), "x".to_owned())].into(),
        ..Model::default()
    }
}

#[test]
fn go_templates_render() {
    let text = r#"{{ $t := printf "%s-%s" namespace target }}sum(x{t="{{ $t }}",v="{{ variables.a }}"}[{{ interval }}]){{ if eq name "c" }} > 0{{ end }}"#;
    assert_eq!(
        render(text, &model()).unwrap(),
        r#"sum(x{t="test-podinfo",v="x"}[1m]) > 0"#
    );
    assert_eq!(
        render(r#"{{ index variables "a" }}"#, &model()).unwrap(),
        "x"
    );
}

#[test]
fn a_missing_variable_is_an_error() {
    assert!(render("{{ variables.b }}", &model()).is_err());
    assert!(render("{{ nonsense }}", &model()).is_err());
    assert!(
        render("{{", &model())
            .unwrap_err()
            .to_string()
            .starts_with("template parsing failed: ")
    );
}

/// Errors reach events, chats and webhooks.
#[test]
fn an_error_prints_no_value_of_a_variable() {
    let model = Model {
        variables: [("a".to_owned(), "hunter2".to_owned())].into(),
        ..model()
    };
    for text in [
        "{{ variables.b }}",
        "{{ variables.b.c }}",
        "{{ variables.a.c }}",
        "{{ index variables 1 }}",
        "{{ index variables.a 1 }}",
        "{{ template variables.a }}",
        r#"{{ printf "%d" variables }}"#,
        "{{ len variables.a.b }}",
        "{{ range variables.a }}{{ end }}",
        "{{ eq variables 1 }}",
        "{{ slice variables.a 9 }}",
    ] {
        let error = match render(text, &model) {
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        eprintln!("{text} -> {error}");
        assert!(!error.contains("hunter2"), "{text}: {error}");
    }
}

#[test]
fn a_template_that_calls_itself_is_an_error() {
    assert!(
        render(
            r#"{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}"#,
            &model()
        )
        .is_err()
    );
}

#[test]
fn a_missing_variable_is_an_error_wherever_it_is_looked_up() {
    for text in [
        "{{ if variables.b }}y{{ end }}",
        "{{ with variables.b }}y{{ end }}",
        r#"{{ printf "%s" variables.b }}"#,
        "{{ print variables.b }}",
        "{{ $v := variables.b }}ok",
        r#"{{ eq variables.b "x" }}"#,
    ] {
        let error = render(text, &model()).unwrap_err().to_string();
        assert!(
            error.starts_with("template excution failed: "),
            "{text}: {error}"
        );
    }
    for (text, rendered) in [
        (r#"[{{ index variables "b" }}]"#, "[]"),
        (r#"{{ if index variables "b" }}y{{ else }}n{{ end }}"#, "n"),
        (r#"x{l="<no value>"}"#, r#"x{l="<no value>"}"#),
        (
            "{{ range $k, $v := variables }}{{ $k }}={{ $v }}{{ end }}",
            "a=x",
        ),
        ("{{ len variables }}", "1"),
    ] {
        assert_eq!(render(text, &model()).unwrap(), rendered, "{text}");
    }
}

#[test]
fn no_template_ends_the_process() {
    let parentheses = |n| format!("{{{{ {}1{} }}}}", "(".repeat(n), ")".repeat(n));
    let branches = |n| {
        format!(
            "{{{{ if 0 }}}}{}{{{{ end }}}}",
            "{{- else if 0 }}".repeat(n)
        )
    };
    for text in [
        parentheses(100_000),
        parentheses(200),
        branches(5_000),
        branches(200),
        format!("{{{{ {}", r#"")))" ("#.repeat(200)),
        format!(r#"{{{{ "}}}}" {} }}}}"#, "(".repeat(200)),
        format!(r#"{{{{- /* " */ -}}}}{{{{ {}"#, "(".repeat(200)),
        r#"{{ "\u" }}"#.to_owned(),
        r#"{{ "\x" }}"#.to_owned(),
        r"{{ `a\u00z` }}".to_owned(),
        r#"{{ "\uéé" }}"#.to_owned(),
        r#"{{/* " */}}{{ "\u" }}"#.to_owned(),
        r#"{{ "\\" "\u" }}"#.to_owned(),
        r#"{{ '"' }}{{ "\u" }}"#.to_owned(),
        r#"{{ range 200 }}{{ range 200 }}{{ if printf "%08000d" 1 | len }}{{ end }}{{ end }}{{ end }}"#.to_owned(),
        "a".repeat(TEXT + 1),
    ] {
        let error = render(&text, &model()).unwrap_err().to_string();
        assert!(error.len() <= 256, "{error}");
    }
}

/// Without the limits, each of these took seconds at every reconcile.
#[test]
fn no_template_keeps_the_process_busy() {
    let halves: Vec<String> = (0..30)
        .map(|i| {
            let call = format!("{{{{ template \"{}\" }}}}", i + 1);
            format!("{{{{ define \"{i}\" }}}}{call}{call}{{{{ end }}}}")
        })
        .collect();
    for text in [
        halves.concat() + r#"{{ define "30" }}{{ end }}{{ template "0" }}"#,
        format!(
            "{{{{ range 32 }}}}{}{{{{ end }}}}",
            r#"{{ if printf "%08000d" 1 | len }}{{ end }}"#.repeat(300)
        ),
        format!(
            "{{{{ range 32 }}}}{{{{ if or {} }}}}{{{{ end }}}}{{{{ end }}}}",
            "variables.b ".repeat(1000)
        ),
        r#"{{ range 33 }}{{ printf "%08000d" 1 | len }}{{ end }}"#.to_owned(),
    ] {
        render(&text, &model()).unwrap_err();
    }
    let mut large = model();
    large.variables = (0..=VARIABLES)
        .map(|i| (i.to_string(), String::new()))
        .collect();
    render("{{ variables }}", &large).unwrap_err();
    large.variables = [("large".to_owned(), "x".repeat(VARIABLES_TEXT))].into();
    render("{{ variables }}", &large).unwrap_err();
}

#[test]
fn a_query_at_the_limits_is_rendered() {
    let deepest = format!(
        "{}{}{}1{}{{{{ end }}}}{}",
        "{{ if 1 }}".repeat(24),
        "{{ if 0 }}",
        "{{ else if 0 }}".repeat(ELSES) + "{{ " + &"(".repeat(PARENTHESES),
        ")".repeat(PARENTHESES) + " }}",
        "{{ end }}".repeat(24),
    );
    assert_eq!(render(&deepest, &model()).unwrap(), "");
    let text =
        r#"sum(rate(a{p=~"\\d+\u0041"}[{{ interval }}])) / ((((((((((((((((((1))))))))))))))))))"#;
    assert_eq!(
        render(text, &model()),
        Ok(text.replace("{{ interval }}", "1m"))
    );
    assert_eq!(
        render(r#"{{ printf "%q\t%v" target `x` }}"#, &model()).unwrap(),
        "\"podinfo\"\tx"
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_rendered_or_refused(parts in proptest::collection::vec(proptest::sample::select(vec![
        "{{", "}}", "{{-", "-}}", " ", "(", ")", "|", "$x", ":=", "=", "if", "else", "end", "range", "with", "define", "block",
        "template", "\"a\"", "\"", "'", "`", "\\", "u", "x", "é", "1", "-1", "0x", ".", ".b", ",", "variables", "name", "printf",
        "index", "slice", "len", "\"%d\"", "break", "nil", "true", "\n", "/*", "*/",
    ]), 0..40)) {
        // The call must return; its result does not matter.
        let _ = render(&parts.concat(), &model());
    }
}

#[test]
fn each_name_has_its_value() {
    let model = Model {
        name: "a".into(),
        namespace: "b".into(),
        target: "c".into(),
        service: "d".into(),
        ingress: "e".into(),
        route: "f".into(),
        interval: "g".into(),
        ..Model::default()
    };
    let text = "{{ name }} {{ namespace }} {{ target }} {{ service }} {{ ingress }} {{ route }} {{ interval }}";
    assert_eq!(render(text, &model).unwrap(), "a b c d e f g");
}

#[test]
fn the_names_are_those_of_the_canary_and_the_metric() {
    let canary = |more: serde_json::Value| {
        let mut spec = serde_json::json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "target"}, "service": {"port": 80}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let object = serde_json::json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "c", "namespace": "n"}, "spec": spec});
        serde_json::from_value::<Canary>(object).unwrap()
    };
    let metric = |interval: Option<&str>| CanaryMetric {
        interval: interval.map(str::to_owned),
        template_variables: Some([("k".to_owned(), "v".to_owned())].into()),
        ..CanaryMetric::default()
    };
    let plain = Model {
        name: "c".into(),
        namespace: "n".into(),
        target: "target".into(),
        service: "target".into(),
        ingress: "target".into(),
        route: "target".into(),
        interval: "1m".into(),
        variables: [("k".to_owned(), "v".to_owned())].into(),
        is_primary: false,
    };
    assert_eq!(
        Model::of(&canary(serde_json::json!({})), &metric(None), "1m"),
        plain
    );
    assert_eq!(
        Model::of(&canary(serde_json::json!({})), &metric(Some("")), "1m"),
        plain
    );
    let more = serde_json::json!({"service": {"port": 80, "name": "web"}, "ingressRef": {"name": "in"}, "routeRef": {"name": "r"}});
    let named = Model {
        service: "web".into(),
        ingress: "in".into(),
        route: "r".into(),
        interval: "2m".into(),
        ..plain
    };
    assert_eq!(Model::of(&canary(more), &metric(Some("2m")), "1m"), named);
}

/// A parenthesis in a text is no nesting. The engine's lexer and this module must agree on where a text ends.
#[test]
fn parentheses_within_texts_do_not_count() {
    let many = "(".repeat(PARENTHESES + 1);
    for (text, rendered) in [
        (format!(r#"{{{{ "{many}" }}}}"#), many.clone()),
        (format!(r#"{{{{ "\"{many}" }}}}"#), format!("\"{many}")),
        (format!("{{{{ `{many}` }}}}"), many.clone()),
    ] {
        assert_eq!(render(&text, &model()).unwrap(), rendered, "{text}");
    }
    let after = format!(r#"{{{{ "a" {many} }}}}"#);
    let refused = render(&after, &model()).unwrap_err().to_string();
    assert!(
        refused.contains(&Limit::Parentheses.to_string()),
        "{refused}"
    );
}
