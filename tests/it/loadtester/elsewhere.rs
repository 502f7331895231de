//! Tests of tasks on Concord and nGrinder. A mock server answers in the place of each.

use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_string_contains, header, method, path, query_param},
};

use super::*;

fn json_answer(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

#[tokio::test]
async fn a_process_of_concord_is_run_to_its_end() {
    let server = MockServer::start().await;
    let tester = Tester::start(&[]).await;
    let key = tester.path("key");
    std::fs::write(&key, "hush\n").unwrap();
    Mock::given(method("POST"))
        .and(path("/api/v1/process"))
        .and(header("Authorization", "hush"))
        .and(body_string_contains(
            "name=\"arguments.endpoint\"\r\n\r\nhttp://podinfo/\r\n",
        ))
        .respond_with(json_answer(json!({"instanceId": "i-1", "ok": true})))
        .mount(&server)
        .await;
    let status = |status: &str| json_answer(json!({"instanceId": "i-1", "status": status}));
    let ask = || Mock::given(method("GET")).and(path("/api/v1/process/i-1"));
    ask()
        .respond_with(status("RUNNING"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    ask()
        .respond_with(status("FINISHED"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    ask().respond_with(status("FAILED")).mount(&server).await;
    let mut task = json!({
        "type": "concord", "server": server.uri(), "org": "o", "project": "p", "repo": "r", "entrypoint": "e",
        "endpoint": "http://podinfo/", "apiKeyPath": key.display().to_string(), "pollInterval": "1"
    });
    assert_eq!(tester.hook(task.clone()).await, (200, String::new()));
    let failed = "concord instanceID: i-1 failed".to_owned();
    assert_eq!(tester.hook(task.clone()).await, (500, failed));

    task["pollTimeout"] = json!("0");
    let late = "concord process timed out, after 0 seconds".to_owned();
    assert_eq!(tester.hook(task.clone()).await, (500, late));
    task["apiKeyPath"] = json!("/no/such/file");
    let missing = "`apiKeyPath` file doesn't exist /no/such/file".to_owned();
    assert_eq!(tester.hook(task).await, (500, missing));
}

#[tokio::test]
async fn a_test_of_ngrinder_is_run_to_its_end_or_stopped() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/perftest/api/960/clone_and_start"))
        .and(header("Authorization", "Basic YWRtaW46YWRtaW4="))
        .respond_with(json_answer(json!({"status": "READY", "id": 961})))
        .mount(&server)
        .await;
    let status = |status: &str| json_answer(json!({"status": [{"status_id": status}]}));
    let ask = || Mock::given(method("GET")).and(path("/perftest/api/961/status"));
    ask()
        .respond_with(status("FINISHED"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    ask().respond_with(status("TESTING")).mount(&server).await;
    Mock::given(method("PUT"))
        .and(path("/perftest/api/961"))
        .and(query_param("action", "stop"))
        .respond_with(json_answer(json!({"success": true})))
        .expect(1)
        .mount(&server)
        .await;
    let mut tester = Tester::start(&["-timeout=2s"]).await;
    let task = json!({
        "type": "ngrinder", "server": server.uri(), "clone": "960", "username": "admin", "passwd": "YWRtaW4=",
        "pollInterval": "100ms"
    });
    assert_eq!(tester.hook(task.clone()).await, (202, String::new()));
    tester.will_log("command finished ngrinder clone 960").await;
    // Wait until the task can be started again.
    eventually(async || {
        tester.hook(task.clone()).await;
        let requests = server.received_requests().await.unwrap();
        let starts = requests
            .iter()
            .filter(|request| request.method == Method::POST);
        (starts.count() > 1).then_some(())
    })
    .await;
    let why = "command failed ngrinder clone 960 it ran longer than -timeout=2s allows";
    tester.will_log(why).await;
}
