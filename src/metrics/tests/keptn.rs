//! The exchange about an Analysis of Keptn.

use serde_json::{Value, json};

use super::*;
use crate::snapshot::Method;

const CREATED: &str = "POST /apis/metrics.keptn.sh/v1beta1/namespaces/test/analyses";

/// Plays a query: each request is answered with the next of these answers, the last of which is repeated. Returns the requests and the
/// value.
fn play(
    query: &str,
    budget: u64,
    answers: &[Result<(u16, Value), &str>],
) -> (Vec<String>, Result<f64, MetricError>) {
    let spec = serde_json::from_value(json!({"type": "keptn"})).unwrap();
    let query = Query {
        server: Server::of(&spec, None, None).unwrap(),
        asks: Asks::Value(query.to_owned()),
        budget: Duration::from_secs(budget),
    };
    let begun = Timestamp::from_second(NOW).unwrap();
    let (mut replies, mut sent) = (Vec::new(), Vec::new());
    let mut request = query.request(begun);
    for place in 0..30 {
        assert_eq!(request.origin, Origin::ApiServer);
        assert_eq!(request.budget, Some(query.budget));
        let path = request.url.0.replace("https://kubernetes.default.svc", "");
        let path = path.replace("podinfo-", "…");
        let verb = match request.method {
            Method::Get => "GET",
            Method::Delete => "DELETE",
            _ => "POST",
        };
        sent.push(format!("{verb} {path}"));
        let answer = answers.get(place).or(answers.last()).unwrap();
        replies.push(match answer {
            Ok((status, body)) => Ok(answer_of(*status, body)),
            Err(why) => Err(MetricError::NoAnswer((*why).to_owned())),
        });
        match query.next(begun, &replies) {
            Next::Value(value) => return (sent, value),
            Next::Send(next, pause) => {
                let seconds = u64::from(next.method == Method::Get);
                assert_eq!(pause, Duration::from_secs(seconds), "a pause before a read");
                request = *next;
            }
        }
    }
    panic!("no end: {sent:?}");
}

fn answer_of(status: u16, body: &Value) -> HttpResponse {
    answer(status, &body.to_string())
}

#[expect(clippy::unnecessary_wraps, reason = "a row of answers has errors, too")]
fn state(status: Value) -> Result<(u16, Value), &'static str> {
    Ok((200, json!({"metadata": {}, "status": status})))
}

#[expect(clippy::unnecessary_wraps, reason = "a row of answers has errors, too")]
fn done() -> Result<(u16, Value), &'static str> {
    Ok((200, json!({"kind": "Status", "status": "Success"})))
}

const QUERY: &str = "Analysis/test/podinfo/5m/workload=Web;stage=;bad;a=b=c\n";

#[test]
fn an_analysis_is_created_read_until_it_is_complete_and_deleted() {
    let created = Ok((201, json!({})));
    // Keptn omits `pass` if it is false.
    for (status, expected) in [
        (json!({"state": "Completed", "pass": true}), 1.0),
        (json!({"state": "Completed", "pass": false}), 0.0),
        (json!({"state": "Completed"}), 0.0),
    ] {
        let answers = [
            created.clone(),
            state(json!({"state": "Pending"})),
            state(json!(null)),
            state(status),
            done(),
        ];
        let (sent, value) = play(QUERY, 60, &answers);
        assert_eq!(value, Ok(expected));
        let [post, reads @ .., delete] = sent.as_slice() else {
            panic!("{sent:?}")
        };
        let path = post.replace("POST ", "");
        let name = delete.strip_prefix(&format!("DELETE {path}/…")).unwrap();
        assert_eq!((post.as_str(), name.len()), (CREATED, 6));
        assert_eq!(reads, vec![format!("GET {path}/…{name}"); 3]);
    }
}

#[test]
fn the_analysis_has_flaggers_form() {
    let spec = serde_json::from_value(json!({"type": "keptn"})).unwrap();
    let server = Server::of(&spec, None, None).unwrap();
    let request = request(&server, QUERY);
    assert_eq!(request.retries, 0, "a second attempt would find the first");
    let mut sent: Value = serde_json::from_str(&request.body.unwrap()).unwrap();
    let name = sent["metadata"]["name"].take();
    assert!(name.as_str().unwrap().starts_with("podinfo-"), "{name}");
    let metadata = json!({"name": null, "namespace": "test", "labels": {"app.kubernetes.io/managed-by": "flagger"}});
    let spec = json!({"analysisDefinition": {"name": "podinfo"}, "timeframe": {"recent": "5m"},
        "args": {"workload": "Web", "stage": ""}});
    assert_eq!(
        sent,
        json!({"apiVersion": "metrics.keptn.sh/v1beta1", "kind": "Analysis", "metadata": metadata, "spec": spec})
    );
}

/// Each row has the answers, the number of requests, and the error.
#[test]
fn each_failure_of_an_analysis_is_reported_and_what_was_created_is_deleted() {
    let created = || Ok((201, json!({})));
    let refused = |why: &str| Ok((403, json!({"kind": "Status", "message": why})));
    let pending = || state(json!({"state": "Progressing"}));
    let passed = || state(json!({"state": "Completed", "pass": true}));
    let rows = [
        (
            vec![refused("cannot create")],
            1,
            "could not create Keptn Analysis test/podinfo: cannot create",
        ),
        // The Analysis may have been created, so it is deleted.
        (
            vec![Err("broke off"), done()],
            2,
            "could not create Keptn Analysis test/podinfo: request failed: broke off",
        ),
        (
            vec![created(), Ok((404, json!({"message": "gone"}))), done()],
            3,
            "could not check status of created Keptn Analysis test/podinfo: gone",
        ),
        (
            vec![created(), Err("timeout"), done()],
            3,
            "could not check status of created Keptn Analysis test/podinfo: request failed: timeout",
        ),
        (
            vec![created(), pending()],
            12,
            "encountered timeout while waiting for Keptn Analysis test/podinfo to be finished",
        ),
        (
            vec![created(), passed(), refused("cannot delete")],
            3,
            "could not delete Keptn Analysis test/podinfo-",
        ),
    ];
    for (answers, requests, text) in rows {
        let (sent, value) = play("analyses/test/podinfo", 60, &answers);
        let error = value.unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
        assert!(!error.is_none());
        assert_eq!(sent.len(), requests, "{text}: {sent:?}");
        let is_deleted = sent.last().is_some_and(|sent| sent.starts_with("DELETE"));
        assert_eq!(is_deleted, requests > 1, "{sent:?}");
    }
    // A step of ten seconds ends before the next one begins.
    let (sent, _) = play("analyses/test/podinfo", 9, &[created(), pending()]);
    assert_eq!(sent.len(), 10, "{sent:?}");
    let gone = Ok((404, json!({})));
    let (_, value) = play("analysis/test/podinfo", 60, &[created(), passed(), gone]);
    assert_eq!(value, Ok(1.0), "somebody else has deleted it");
}

#[test]
fn a_metric_that_cannot_be_read_is_named() {
    for (answer, text) in [
        (
            Ok((
                404,
                json!({"message": "keptnmetrics.metrics.keptn.sh \"speed\" not found"}),
            )),
            "could not retrieve KeptnMetric test/speed: keptnmetrics.metrics.keptn.sh \"speed\" not found",
        ),
        (
            Err("no answer"),
            "could not retrieve KeptnMetric test/speed: request failed: no answer",
        ),
    ] {
        let (_, value) = play("keptnmetrics/test/speed", 60, &[answer]);
        assert_eq!(value.unwrap_err().to_string(), text);
    }
}

#[test]
fn a_query_that_names_no_object_is_not_sent() {
    let form = "unexpected query format. query must be in the format <keptnmetric|analysis>/<namespace>/<resourceName>/<duration>/<arguments>";
    let kinds = "unexpected resource kind provided in the query. must be one of: ['keptnmetric', 'analysis']";
    let spec = serde_json::from_value(json!({"type": "keptn"})).unwrap();
    let server = Server::of(&spec, None, None).unwrap();
    for (query, text) in [
        ("", form),
        ("keptnmetric/test", form),
        ("secrets/test/key", kinds),
        ("keptnmetric/../secrets", form),
        ("keptnmetric/test/..", form),
        ("keptnmetric/test/a?b", form),
        ("keptnmetric/test/a%2fb", form),
        ("keptnmetric//a", form),
    ] {
        let error = server.queried(query).unwrap_err();
        assert_eq!(error.to_string(), text, "{query}");
    }
    let queried = server.queried(" KeptnMetric/Test/Speed ").unwrap().unwrap();
    assert_eq!(
        (queried.what, &*queried.namespace, &*queried.name),
        ("keptn metric", "test", "speed")
    );
}
