//! `flagger dashboard` as a process, with users of different rights.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::{Client, Response, StatusCode, header, redirect::Policy};
use serde_json::json;
use tokio::time::timeout;

use super::{many_users::ManyUsers, text};

/// The process, and its address.
struct Dashboard {
    process: Child,
    url: String,
    client: Client,
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(server: &ManyUsers, token: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagger"));
    command
        .arg("dashboard")
        .args(args)
        .args(["--kubeconfig", &server.kubeconfig(token)]);
    command
}

impl Dashboard {
    fn start(server: &ManyUsers, token: &str, args: &[&str]) -> Self {
        let mut command = command(
            server,
            token,
            &[&["--listen", "127.0.0.1:0"], args].concat(),
        );
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let url = line
            .rsplit(' ')
            .next()
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .build();
        Self {
            process,
            url,
            client: client.unwrap(),
        }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let request = self.client.get(format!("{}{path}", self.url));
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        request.send().await.unwrap()
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], form: &str) -> Response {
        let request = self.client.post(format!("{}{path}", self.url));
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        request.body(form.to_owned()).send().await.unwrap()
    }

    /// The status and the text of a page.
    async fn page(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let response = self.get(path, headers).await;
        (response.status(), response.text().await.unwrap())
    }

    /// Logs in. Returns the cookie.
    async fn log_in(&self, token: &str) -> String {
        let origin = [("origin", self.url.as_str())];
        let response = self
            .post(
                "/login",
                &origin,
                &format!("token={token}&next=%2F%2Fevil.example"),
            )
            .await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        assert_eq!(response.headers()[header::LOCATION], "/", "no other server");
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
            "{cookie}"
        );
        cookie.split(';').next().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_visitor_sees_and_does_what_their_own_account_may() {
    let server = ManyUsers::start().await;
    let dashboard = Dashboard::start(&server, "of-process", &["--auth=token"]);
    let (status, form) = dashboard.page("/c/shop/checkout", &[]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(
        form.contains("name=\"next\" value=\"/c/shop/checkout\"") && !form.contains("Progressing"),
        "{form}"
    );
    let origin = ("origin", dashboard.url.as_str());
    let wrong = dashboard.post("/login", &[origin], "token=of-nobody").await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);

    let sees = async |token: &str| {
        let cookie = dashboard.log_in(token).await;
        let (_, fleet) = dashboard.page("/", &[("cookie", &cookie)]).await;
        let (status, _) = dashboard
            .page("/c/secret/ledger", &[("cookie", &cookie)])
            .await;
        let (_, page) = dashboard
            .page("/c/shop/checkout", &[("cookie", &cookie)])
            .await;
        let verbs = ["pause", "skip", "promote", "abort", "resume", "retry"];
        let buttons = verbs
            .into_iter()
            .filter(|verb| page.contains(&format!("action=\"/c/shop/checkout/{verb}\"")));
        (
            fleet.contains("ledger"),
            status,
            buttons.collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        sees("of-admin").await,
        (
            true,
            StatusCode::OK,
            vec!["pause", "skip", "promote", "abort"]
        )
    );
    assert_eq!(
        sees("of-jane").await,
        (false, StatusCode::NOT_FOUND, vec!["pause", "abort"])
    );
    assert_eq!(
        sees("of-viewer").await,
        (false, StatusCode::NOT_FOUND, vec![])
    );

    let act = async |token: &str, verb: &str| {
        let cookie = dashboard.log_in(token).await;
        let form = "reason=errors+at+the+checkout&revision=v1-b";
        let response = dashboard
            .post(
                &format!("/c/shop/checkout/{verb}"),
                &[("cookie", &cookie), origin],
                form,
            )
            .await;
        (response.status(), response.text().await.unwrap())
    };
    let (status, page) = act("of-viewer", "abort").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(
        page.contains("viewer@example.com may not abort canary checkout"),
        "{page}"
    );
    // The page of an error has the user, too, and the way out.
    assert!(
        page.contains("<bdi>viewer@example.com</bdi>") && page.contains("action=\"/logout\""),
        "{page}"
    );
    assert_eq!(act("of-jane", "promote").await.0, StatusCode::FORBIDDEN);
    assert_eq!(act("of-jane", "abort").await.0, StatusCode::SEE_OTHER);
    let patches = server.received("PATCH");
    let last = patches.last().unwrap();
    let line = last.body["metadata"]["annotations"]["flagger-rs.github.io/action"]
        .as_str()
        .unwrap();
    assert!(
        line.starts_with("abort v1-b ")
            && line.ends_with(" jane@example.com errors at the checkout"),
        "{line}"
    );
    // Each patch, and each read of one canary, was sent with the token of a visitor.
    let of_one = server.received("/namespaces/").into_iter().chain(patches);
    assert!(
        of_one
            .into_iter()
            .all(|it| !it.user.starts_with("system:serviceaccount:"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_site_does_nothing() {
    let server = ManyUsers::start().await;
    let dashboard = Dashboard::start(&server, "of-process", &["--auth=token"]);
    let cookie = dashboard.log_in("of-admin").await;
    for origin in [Some("https://evil.example"), Some("null"), None] {
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let refused = dashboard
            .post("/c/shop/checkout/abort", &headers, "reason=x")
            .await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{origin:?}");
    }
    // A version that is not the one of the run any more.
    let own = [
        ("cookie", cookie.as_str()),
        ("origin", dashboard.url.as_str()),
    ];
    let stale = dashboard
        .post("/c/shop/checkout/abort", &own, "reason=x&revision=v1-old")
        .await;
    assert_eq!(stale.status(), StatusCode::NOT_FOUND);
    let none = dashboard
        .post("/c/shop/checkout/abort", &own, "reason=++")
        .await;
    assert_eq!(none.status(), StatusCode::BAD_REQUEST);
    let long = format!("reason={}", "x".repeat(500));
    let long = dashboard.post("/c/shop/checkout/abort", &own, &long).await;
    assert_eq!(long.status(), StatusCode::BAD_REQUEST);
    let huge = dashboard
        .post("/c/shop/checkout/abort", &own, &"x".repeat(1 << 20))
        .await;
    assert_eq!(huge.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(server.received("PATCH").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_login_only_this_machine_is_served() {
    let server = ManyUsers::start().await;
    for (args, expected) in [
        (&["--listen", "0.0.0.0:0"][..], "everybody who reaches"),
        (
            &["--listen", "0.0.0.0:0", "--auth=none"],
            "everybody who reaches",
        ),
        (&["--auth=headers"], "--trusted-proxy"),
        (
            &["--auth=headers", "--trusted-proxy", "10.0.0.0/99"],
            "is no network",
        ),
        (&["--listen", "here"], "--listen needs"),
        (&["--frame-ancestor", "*"], "--frame-ancestor needs"),
    ] {
        let refused = command(&server, "of-admin", args).output().unwrap();
        let stderr = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{args:?} {stderr}");
        assert!(stderr.contains(expected), "{args:?} {stderr}");
    }
    let dashboard = Dashboard::start(&server, "of-admin", &[]);
    let (status, page) = dashboard.page("/", &[]).await;
    assert!(
        status == StatusCode::OK && page.contains("ledger"),
        "{page}"
    );
    let (status, page) = dashboard.page("/", &[("host", "evil.example")]).await;
    assert!(
        status == StatusCode::FORBIDDEN && !page.contains("ledger"),
        "{page}"
    );
    let form = dashboard
        .post("/c/secret/ledger/pause", &[("origin", &dashboard.url)], "")
        .await;
    assert_eq!(form.status(), StatusCode::SEE_OTHER);
    assert_eq!(server.received("PATCH").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_names_the_user_by_a_token_or_by_headers() {
    let server = ManyUsers::start().await;
    let forwarded = Dashboard::start(&server, "of-process", &["--auth=forwarded"]);
    let (status, page) = forwarded
        .page("/", &[("authorization", "Bearer of-jane")])
        .await;
    assert!(
        status == StatusCode::OK && page.contains("checkout") && !page.contains("ledger"),
        "{page}"
    );
    assert_eq!(forwarded.page("/", &[]).await.0, StatusCode::UNAUTHORIZED);
    let named = Dashboard::start(
        &server,
        "of-proxy",
        &["--auth=headers", "--trusted-proxy=127.0.0.0/8"],
    );
    let jane = [
        ("x-forwarded-user", "jane@example.com"),
        ("x-forwarded-groups", "dev"),
    ];
    let (status, page) = named.page("/c/shop/checkout", &jane).await;
    assert!(
        status == StatusCode::OK && page.contains("/abort\""),
        "{page}"
    );
    assert_eq!(
        named.page("/c/secret/ledger", &jane).await.0,
        StatusCode::NOT_FOUND
    );
    let other = Dashboard::start(
        &server,
        "of-proxy",
        &["--auth=headers", "--trusted-proxy=192.0.2.1"],
    );
    assert_eq!(other.page("/", &jane).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_follows_its_canary_and_ends_with_the_login() {
    let server = ManyUsers::start().await;
    let dashboard = Dashboard::start(&server, "of-process", &["--auth=token"]);
    let cookie = dashboard.log_in("of-jane").await;
    let session = [("cookie", cookie.as_str())];
    let mut events = dashboard.get("/events?of=/c/shop/checkout", &session).await;
    assert_eq!(events.headers()[header::CONTENT_TYPE], "text/event-stream");
    shows(&mut events, "10 % of the traffic").await;
    server.set(
        "shop",
        "checkout",
        json!({"phase": "Progressing", "canaryWeight": 40}),
    );
    shows(&mut events, "40 % of the traffic").await;
    dashboard
        .post(
            "/logout",
            &[("cookie", &cookie), ("origin", &dashboard.url)],
            "",
        )
        .await;
    server.set(
        "shop",
        "checkout",
        json!({"phase": "Progressing", "canaryWeight": 50}),
    );
    let rest = shows(&mut events, "event: login").await;
    assert!(!rest.contains("50 %"), "{rest}");
    assert!(
        events.chunk().await.unwrap().is_none(),
        "the stream has ended"
    );
    let mut anonymous = dashboard.get("/events?of=/", &[]).await;
    shows(&mut anonymous, "event: login").await;
    // A page that the visitor may not see.
    let cookie = dashboard.log_in("of-jane").await;
    let mut hidden = dashboard
        .get("/events?of=/c/secret/ledger", &[("cookie", &cookie)])
        .await;
    let hidden = shows(&mut hidden, "event: login").await;
    assert!(!hidden.contains("ledger"), "{hidden}");
}

/// The events until one contains a text.
async fn shows(events: &mut Response, wanted: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(wanted) {
        let chunk = timeout(Duration::from_secs(20), events.chunk()).await;
        let chunk = chunk
            .unwrap_or_else(|_| panic!("no {wanted} in {seen}"))
            .unwrap();
        let chunk = chunk.unwrap_or_else(|| panic!("the end, without {wanted}: {seen}"));
        seen.push_str(text(&chunk));
    }
    seen
}
