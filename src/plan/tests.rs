use serde_json::json;

use super::*;

fn signs(before: &str, after: &str) -> String {
    let lines = diff(before, after);
    lines.iter().map(|it| format!("{}{}|", it.sign, it.text)).collect()
}

#[test]
fn a_difference_is_shown_with_its_surroundings() {
    assert_eq!(signs("a\nb\nc\n", "a\nx\nc\n"), " a|-b|+x| c|");
    assert_eq!(signs("", "a\nb\n"), "+a|+b|");
    let long: String = (0..20).map(|i| format!("{i}\n")).collect();
    let changed = long.replace("\n3\n", "\nthree\n").replace("\n15\n", "\n");
    assert_eq!(signs(&long, &changed), " 1| 2|-3|+three| 4| 5|…| 13| 14|-15| 16| 17|");
}

#[test]
fn fields_of_the_server_and_contents_of_secrets_are_not_shown() {
    let before = json!({"kind": "Secret", "metadata": {"name": "a", "resourceVersion": "1", "uid": "u"}, "data": {"k": "aGlkZGVu"}});
    let mut after = before.clone();
    after["metadata"]["resourceVersion"] = json!("2");
    after["status"] = json!({"a": 1});
    assert_eq!(Change::between("Secret a", Some(&before), &after), None);
    let created = Change::between("Secret a", None, &after).unwrap();
    assert_eq!(created.verb, Verb::Create);
    let shown: String = created.diff.iter().map(|line| line.text.clone() + "\n").collect();
    assert!(shown.contains("(hidden)") && !shown.contains("aGlkZGVu") && !shown.contains("uid"), "{shown}");
}
