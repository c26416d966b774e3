//! What callers of the API meet, in process: the real router, store and recorder, and a plane with one node.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands, its helpers included")]

use aether_core::{
    decision::Envelope,
    id::{DecisionId, Digest, NodeId, PrincipalId, SlotId},
    incident::Rank,
    metric,
    policy::Posture,
    subject::SubjectRef,
    time::Time,
};
use aether_host::{
    api::{self, App, Check, NotDecided, Parts, Plane, Word, view},
    auth, clock,
    fabric::{NodeView, TelemetryView},
    plugins::{self, Added, By, Deed, registry::Registry},
    store::{self, Store},
};
use aether_recorder::Recorder;
use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use expect_test::expect_file;
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// A fleet of one node, in which nothing was decided yet.
struct OneNode;

#[async_trait]
impl Plane for OneNode {
    fn nodes(&self) -> Vec<NodeView> {
        vec![NodeView {
            id: NodeId::new("node-a"),
            generation: 1,
            live: true,
            registered_at: Time(1),
            connected_since: Some(Time(2)),
            last_seen: Some(clock::now()),
            clock_skew_ms: Some(0),
            software_version: "0.1.0".into(),
            instance: "one".into(),
            capabilities: vec![],
            facts: BTreeMap::new(),
            workloads: vec![],
            cordon: None,
            asleep: None,
            telemetry: TelemetryView::default(),
        }]
    }
    fn node(&self, id: &NodeId) -> Option<NodeView> {
        self.nodes().into_iter().find(|node| node.id == *id)
    }

    fn risks(&self) -> Vec<view::SubjectRisk> {
        vec![]
    }
    fn bundle(&self) -> Option<view::BundleInfo> {
        None
    }
    fn slots(&self) -> view::Slots {
        view::Slots { bundle: None, slots: vec![], missing: vec![] }
    }
    fn slot_news(&self) -> Vec<view::SlotNews> {
        vec![]
    }
    async fn act_on_slot(&self, slot: &SlotId, _: Deed, _: By) -> Result<Option<Added>, plugins::Error> {
        Err(plugins::Error::NoSlot(slot.clone()))
    }
    fn plugins(&self) -> Vec<view::Plugin> {
        vec![]
    }
    async fn decide(&self, _: Word) -> Result<(), NotDecided> {
        Err(NotDecided::Closed)
    }
    async fn create_join_token(&self, _: Option<&NodeId>, _: Time) -> Result<String, store::Error> {
        Ok("aether-join-1".into())
    }
    fn recent_decision(&self, _: &DecisionId) -> Option<Envelope> {
        None
    }
    fn checks(&self) -> Vec<Check> {
        vec![Check { name: "slots", failure: Some("no component stands".into()) }]
    }
}

struct Api {
    folder: tempfile::TempDir,
    store: Store,
    recorder: Recorder,
    router: Router,
    stop: CancellationToken,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
    /// The code of a whole problem document.
    fn problem(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text);
        let problem: api::Problem = serde_json::from_value(self.json()).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(problem.kind, format!("urn:aether:error:{}", problem.code));
        assert!(!problem.title.is_empty() && !problem.detail.is_empty() && !problem.instance.is_empty());
        problem.code
    }
}

impl Api {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("aether.db")).await.unwrap();
        let segments = aether_recorder::local_store(&folder.path().join("telemetry")).unwrap();
        let recorder = Recorder::open(aether_recorder::Settings::default(), segments, clock::now()).await.unwrap();
        let engine = aether_runtime::Engine::new(aether_runtime::EngineSettings::default()).unwrap();
        let settings = plugins::registry::Settings::default();
        let registry = Registry::open(folder.path(), store.clone(), engine, settings).await.unwrap();
        let stop = CancellationToken::new();
        let app = App::new(Parts {
            store: store.clone(),
            recorder: recorder.clone(),
            registry,
            plane: Arc::new(OneNode),
            posture: Posture::default(),
            secure: false,
            metrics: Some(api::install_metrics().unwrap()),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        });
        Self { folder, store, recorder, router: app.router(), stop }
    }

    async fn token(&self, rank: Rank) -> String {
        auth::issue(&self.store, rank.name(), rank, "test", clock::now(), None).await.unwrap().0
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        Answer { status, headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        self.send(request(method, path, token, body)).await
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, Some(token), None).await
    }
}

fn request(method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Request<Body> {
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    match body {
        Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    }
    .unwrap()
}

/// A path with its parameters filled in.
fn concrete(path: &str) -> String {
    path.replace("{id}", "node-a").replace("{hash}", &"0".repeat(64)).replace("{digest}", &"0".repeat(64))
}

#[test]
fn the_openapi_document_is_the_one_that_clients_are_made_from() {
    let document = api::openapi().to_pretty_json().expect("a document");
    expect_file!["../api/openapi.json"].assert_eq(&format!("{document}\n"));
}

#[test]
fn every_code_has_a_section_that_says_what_happened_what_to_check_and_what_was_not_lost() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
    let text = std::fs::read_to_string(path).unwrap();
    let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
    let heads: Vec<String> = sections.iter().map(|section| section.lines().next().unwrap_or_default().into()).collect();
    let codes: Vec<String> = api::CODES.iter().map(|(code, title)| format!("{code}: {title}")).collect();
    assert_eq!(heads, codes, "docs/errors.md and the codes differ");
    for section in sections {
        for part in ["**What happened.**", "**What to check.**", "**What was not lost.**"] {
            assert!(section.contains(part), "a section lacks {part}: {section}");
        }
    }
}

#[tokio::test]
async fn every_endpoint_asks_for_a_token_and_for_its_rank() {
    let api = Api::start().await;
    let mut tokens = BTreeMap::new();
    for rank in Rank::ALL {
        tokens.insert(rank, api.token(rank).await);
    }
    let endpoints = api::endpoints();
    assert!(endpoints.len() > 25, "{endpoints:?}");
    for endpoint in endpoints {
        let (method, path) = (endpoint.method, concrete(&endpoint.path));
        let Some(needed) = endpoint.rank else { continue };
        let answer = api.call(method, &path, None, None).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::UNAUTHORIZED, "AE0001"), "{method} {path}");
        assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
        let answer = api.call(method, &path, Some("aet_0"), None).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::UNAUTHORIZED, "AE0002"), "{method} {path}");
        for (rank, token) in &tokens {
            // An event stream never ends, so only its beginning is looked at.
            let response = api.router.clone().oneshot(request(method, &path, Some(token), None)).await.unwrap();
            let refused = response.status() == StatusCode::FORBIDDEN;
            assert_eq!(refused, *rank < needed, "{method} {path} as {}: {}", rank.name(), response.status());
            assert_ne!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
            assert!(response.status() != StatusCode::INTERNAL_SERVER_ERROR, "{method} {path}");
            if refused {
                let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
                assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap()["code"], "AE0003");
            }
        }
    }
}

#[tokio::test]
async fn what_is_open_tells_nothing_of_the_fleet() {
    let api = Api::start().await;
    let open: Vec<String> = api::endpoints()
        .into_iter()
        .filter(|endpoint| endpoint.rank.is_none())
        .map(|endpoint| format!("{} {}", endpoint.method, endpoint.path))
        .collect();
    assert_eq!(open, ["GET /api/v1/openapi.json", "POST /api/v1/session", "DELETE /api/v1/session"]);
    assert_eq!(api.call("GET", "/healthz", None, None).await.text, "ok\n");
    let metrics = api.call("GET", "/metrics", None, None).await.text;
    assert!(metrics.contains("aether_nodes_live 1") && !metrics.contains("node-a"), "{metrics}");
    let ready = api.call("GET", "/readyz", None, None).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    let checks = ready.json()["checks"].clone();
    let failed: Vec<&Value> = checks.as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["reason"], "no component stands");
}

#[tokio::test]
async fn bad_requests_are_problems_that_say_what_is_wrong() {
    let api = Api::start().await;
    let admin = api.token(Rank::Admin).await;
    let bad = [
        ("GET", "/api/v1/nope", None, 404, "AE0005", "openapi.json"),
        ("GET", "/api/nope", None, 404, "AE0005", "openapi.json"),
        ("PATCH", "/api/v1/nodes", None, 405, "AE0006", "method"),
        ("GET", "/api/v1/nodes/node-z", None, 404, "AE0004", "node-z"),
        ("GET", "/api/v1/incidents?limitt=1", None, 400, "AE0009", "limitt"),
        ("GET", "/api/v1/incidents?limit=many", None, 400, "AE0009", "limit"),
        ("GET", "/api/v1/telemetry/range?subject=node-a&metric=m", None, 400, "AE0009", "<kind>/<id>"),
        ("GET", "/api/v1/telemetry/range?subject=node/a&metric=m&points=0", None, 400, "AE0009", "points"),
        ("GET", "/api/v1/telemetry/range?subject=node/a&metric=m&from=9&to=8", None, 400, "AE0009", "from"),
        ("POST", "/api/v1/tokens", Some(json!({ "name": "a", "rank": "boss" })), 422, "AE0007", "boss"),
        ("POST", "/api/v1/tokens", Some(json!({ "name": "a", "rank": "admin", "x": 1 })), 422, "AE0007", "`x`"),
        ("POST", "/api/v1/tokens", Some(json!({ "name": "", "rank": "admin" })), 422, "AE0007", "`name`"),
        (
            "POST",
            "/api/v1/tokens",
            Some(json!({ "name": "a", "rank": "admin", "valid_for_ms": 1 })),
            422,
            "AE0007",
            "valid_for_ms",
        ),
        ("POST", "/api/v1/join-tokens", Some(json!({ "node": "Node A" })), 422, "AE0007", "`node`"),
        ("POST", "/api/v1/signals", Some(json!({ "node": "node-a" })), 422, "AE0021", "neither a price nor a notice"),
        ("POST", "/api/v1/signals", Some(json!({ "node": "node-z", "prices": [] })), 404, "AE0004", "node-z"),
        ("DELETE", "/api/v1/tokens/none", None, 404, "AE0004", "none"),
    ];
    for (method, path, body, status, code, part) in bad {
        let answer = api.call(method, path, Some(&admin), body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (status, code),
            "{method} {path}: {}",
            answer.text
        );
        assert!(answer.json()["detail"].as_str().unwrap().contains(part), "{method} {path}: {}", answer.text);
    }
    let approve = format!("/api/v1/plans/{}/approve", "0".repeat(64));
    let answer = api.call("POST", &approve, Some(&admin), Some(json!({ "coment": "typo" }))).await;
    assert_eq!(answer.problem(), "AE0007");
    let answer = api.call("POST", &approve, Some(&admin), None).await;
    assert_eq!(answer.problem(), "AE0004", "an empty body is no comment, and the plan is looked for");

    let malformed = Request::post("/api/v1/tokens")
        .header(header::AUTHORIZATION, format!("Bearer {admin}"))
        .header(header::CONTENT_TYPE, "application/json");
    assert_eq!(api.send(malformed.body(Body::from("{\"name\":")).unwrap()).await.problem(), "AE0007");
    let typeless = Request::post("/api/v1/tokens").header(header::AUTHORIZATION, format!("Bearer {admin}"));
    let typeless = typeless.header(header::CONTENT_LENGTH, "2").body(Body::from("{}")).unwrap();
    let answer = api.send(typeless).await;
    assert!(answer.problem() == "AE0007" && answer.text.contains("Content-Type"), "{}", answer.text);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_and_nothing_of_it_is_taken() {
    let api = Api::start().await;
    let admin = api.token(Rank::Admin).await;
    let name = "n".repeat(api::BODY_LIMIT_BYTES);
    let answer =
        api.call("POST", "/api/v1/tokens", Some(&admin), Some(json!({ "name": name, "rank": "viewer" }))).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (413, "AE0008"));
    assert_eq!(api.store.tokens().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_browser_signs_in_with_a_token_and_out_again() {
    let api = Api::start().await;
    let (token, info) = auth::issue(&api.store, "ann", Rank::Operator, "test", clock::now(), None).await.unwrap();
    let answer = api.call("POST", "/api/v1/session", None, Some(json!({ "token": "aet_wrong" }))).await;
    assert_eq!(answer.problem(), "AE0002");
    assert!(!answer.headers.contains_key(header::SET_COOKIE));

    let answer = api.call("POST", "/api/v1/session", None, Some(json!({ "token": token }))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.json()["rank"], "operator");
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["aether_session=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(&token), "the cookie is not the token");
    let pair = cookie.split(';').next().unwrap().to_owned();
    let with_cookie = |method: &str, path: &str, origin: Option<&str>, body: Option<Value>| {
        let mut request = request(method, path, None, body);
        request.headers_mut().insert(header::COOKIE, pair.parse().unwrap());
        request.headers_mut().insert(header::HOST, "127.0.0.1:7700".parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
        }
        request
    };
    let who = api.send(with_cookie("GET", "/api/v1/session", None, None)).await;
    assert_eq!(who.json()["name"], "ann");

    // What changes something must come from our own page.
    let signals = || Some(json!({ "node": "node-a", "prices": [{ "usd_per_hour": 0.3 }] }));
    for origin in ["http://evil.example", "http://127.0.0.1:8000", "null"] {
        let answer = api.send(with_cookie("POST", "/api/v1/signals", Some(origin), signals())).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "AE0011"), "{origin}");
    }
    let answer = api.send(with_cookie("POST", "/api/v1/signals", Some("http://127.0.0.1:7700"), signals())).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);

    let out = api.send(with_cookie("DELETE", "/api/v1/session", None, None)).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert!(out.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    let who = api.send(with_cookie("GET", "/api/v1/session", None, None)).await;
    assert_eq!(who.problem(), "AE0002", "the session is over, whatever the browser kept");

    // A session dies with its token.
    let answer = api.call("POST", "/api/v1/session", None, Some(json!({ "token": token }))).await;
    let pair = answer.headers[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert!(api.store.delete_token(&info.id, clock::now()).await.unwrap());
    let mut request = request("GET", "/api/v1/session", None, None);
    request.headers_mut().insert(header::COOKIE, pair.parse().unwrap());
    assert_eq!(api.send(request).await.problem(), "AE0002");
}

#[tokio::test]
async fn tokens_are_shown_once_kept_as_hashes_and_end() {
    let api = Api::start().await;
    let admin = api.token(Rank::Admin).await;
    let body = json!({ "name": "feeder", "rank": "operator", "valid_for_ms": 60_000 });
    let made = api.call("POST", "/api/v1/tokens", Some(&admin), Some(body)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let (token, id) =
        (made.json()["token"].as_str().unwrap().to_owned(), made.json()["info"]["id"].as_str().unwrap().to_owned());
    assert_eq!(api.get("/api/v1/session", &token).await.json()["name"], "feeder");
    assert!(!api.get("/api/v1/tokens", &admin).await.text.contains(&token));
    for file in std::fs::read_dir(api.folder.path()).unwrap().flatten() {
        if file.file_type().unwrap().is_file() {
            let bytes = std::fs::read(file.path()).unwrap();
            assert!(!bytes.windows(token.len()).any(|part| part == token.as_bytes()), "{:?}", file.path());
        }
    }

    let hash = Digest::of(token.as_bytes());
    let later = clock::now().plus_ms(61_000);
    assert!(api.store.token(&hash, later).await.unwrap().is_none(), "it has expired by then");

    let mine = api.store.token(&Digest::of(admin.as_bytes()), clock::now()).await.unwrap().unwrap();
    let answer = api.call("DELETE", &format!("/api/v1/tokens/{}", mine.id), Some(&admin), None).await;
    assert_eq!(answer.problem(), "AE0023", "nobody locks himself out");
    let answer = api.call("DELETE", &format!("/api/v1/tokens/{id}"), Some(&admin), None).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(api.get("/api/v1/session", &token).await.problem(), "AE0002");
}

#[tokio::test]
async fn signals_become_series_and_events_that_say_who_sent_them() {
    let api = Api::start().await;
    let (token, info) = auth::issue(&api.store, "feeder", Rank::Operator, "test", clock::now(), None).await.unwrap();
    let now = clock::now();
    let body = json!({
        "node": "node-a",
        "drill": "spot-reclaim",
        "prices": [{ "at": now.0 - 2_000, "usd_per_hour": 0.31 }, { "at": now.0 - 1_000, "usd_per_hour": 0.4 }],
        "notices": [{ "kind": "rebalance" }],
    });
    let answer = api.call("POST", "/api/v1/signals", Some(&token), Some(body)).await;
    assert_eq!(answer.json(), json!({ "samples": 2, "events": 1 }));

    let node = SubjectRef::node("node-a");
    let (key, sample) = api.recorder.latest(&node, metric::MARKET_PRICE).pop().unwrap();
    assert_eq!((sample.value, key.unit.as_str()), (0.4, "{USD}/h"));
    assert_eq!(key.attributes["source"], info.id.0);
    assert_eq!(key.attributes["drill"], "spot-reclaim");
    let events = api.recorder.recent_events(Some(&node), now.minus_ms(5_000));
    assert_eq!((events.len(), events[0].name.as_str()), (1, metric::MARKET_REBALANCE));

    let drills = api.get("/api/v1/status", &token).await.json()["drills"].clone();
    assert_eq!((drills[0]["name"].as_str(), drills[0]["node"].as_str()), (Some("spot-reclaim"), Some("node-a")));
    let range = api.get("/api/v1/telemetry/range?subject=node/node-a&metric=aether.market.price", &token).await.json();
    assert_eq!(
        range["series"][0]["mean"].as_array().unwrap().len(),
        range["series"][0]["at"].as_array().unwrap().len()
    );
    assert_eq!(range["cut"], false);

    let cleared = json!({ "node": "node-a", "drill": "spot-reclaim", "notices": [{ "at": clock::now().0 + 5, "kind": "rebalance_cleared" }] });
    assert_eq!(api.call("POST", "/api/v1/signals", Some(&token), Some(cleared)).await.status, StatusCode::OK);
    assert_eq!(api.get("/api/v1/status", &token).await.json()["drills"], json!([]));

    for (part, body) in [
        (
            "order of time",
            json!({ "node": "node-a", "prices": [{ "at": now.0, "usd_per_hour": 1.0 }, { "at": now.0, "usd_per_hour": 1.0 }] }),
        ),
        ("not between 0", json!({ "node": "node-a", "prices": [{ "usd_per_hour": -1.0 }] })),
        ("an hour ago", json!({ "node": "node-a", "prices": [{ "at": 1, "usd_per_hour": 1.0 }] })),
        ("needs its `deadline`", json!({ "node": "node-a", "notices": [{ "kind": "termination" }] })),
        ("has no `deadline`", json!({ "node": "node-a", "notices": [{ "kind": "rebalance", "deadline": now.0 }] })),
        ("`drill`", json!({ "node": "node-a", "drill": "Not A Name", "notices": [{ "kind": "rebalance" }] })),
    ] {
        let answer = api.call("POST", "/api/v1/signals", Some(&token), Some(body)).await;
        assert_eq!(answer.problem(), "AE0021", "{}", answer.text);
        assert!(answer.text.contains(part), "{part}: {}", answer.text);
    }
}

#[tokio::test]
async fn the_audit_tells_who_did_what_refusals_included_and_a_change_shows() {
    let api = Api::start().await;
    let (admin, viewer) = (api.token(Rank::Admin).await, api.token(Rank::Viewer).await);
    api.call("POST", "/api/v1/tokens", Some(&admin), Some(json!({ "name": "n", "rank": "viewer" }))).await;
    api.call("POST", "/api/v1/tokens", Some(&viewer), Some(json!({ "name": "n", "rank": "admin" }))).await;
    api.call("POST", "/api/v1/session", None, Some(json!({ "token": "aet_guess" }))).await;
    let page = api.get("/api/v1/audit?verify=true", &viewer).await.json();
    let told: Vec<(String, String)> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["action"].as_str().unwrap().into(), entry["outcome"].as_str().unwrap().into()))
        .collect();
    let told: Vec<(&str, &str)> = told.iter().map(|(action, outcome)| (action.as_str(), outcome.as_str())).collect();
    assert_eq!(told, [("session.create", "refused"), ("access", "refused"), ("token.create", "done")]);
    assert_eq!(page["chain_verified"], true);
    assert_eq!(page["chain_head"]["number"], 3);
    let export = api.get("/api/v1/audit/export", &viewer).await;
    let lines: Vec<Value> = export.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3]["head"], page["chain_head"]);

    for _ in 0..40 {
        api.call("POST", "/api/v1/session", None, Some(json!({ "token": "aet_guess" }))).await;
    }
    let count = api.store.audit_entries(None, 1_000).await.unwrap().len();
    assert!(count < 30, "{count}: guesses must not fill the disk");

    // Somebody with the file and a tool.
    let path = format!("sqlite://{}", api.folder.path().join("aether.db").display());
    let pool = sqlx::SqlitePool::connect(&path).await.unwrap();
    let refused = sqlx::query("UPDATE audit SET principal = 'someone'").execute(&pool).await.unwrap_err();
    assert!(refused.to_string().contains("append-only"), "{refused}");
    sqlx::query("DROP TRIGGER audit_is_append_only_update").execute(&pool).await.unwrap();
    sqlx::query("UPDATE audit SET principal = 'someone' WHERE number = 2").execute(&pool).await.unwrap();
    pool.close().await;
    let page = api.get("/api/v1/audit?verify=true", &viewer).await.json();
    assert_eq!((page["chain_verified"].as_bool(), page["chain_broken_at"].as_u64()), (Some(false), Some(2)));
}

#[tokio::test]
async fn a_stream_greets_and_tells_newest_samples_of_what_it_follows() {
    let api = Api::start().await;
    let token = api.token(Rank::Operator).await;
    let follow = request("GET", "/api/v1/events?subjects=node/node-a", Some(&token), None);
    let response = api.router.clone().oneshot(follow).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let body = json!({ "node": "node-a", "prices": [{ "usd_per_hour": 0.77 }] });
    assert_eq!(api.call("POST", "/api/v1/signals", Some(&token), Some(body)).await.status, StatusCode::OK);
    let mut text = String::new();
    while !text.contains("0.77") {
        let part = tokio::time::timeout(std::time::Duration::from_secs(60), stream.next()).await.expect("it goes on");
        text.push_str(std::str::from_utf8(&part.unwrap().unwrap()).unwrap());
    }
    assert!(text.starts_with("event: hello\n"), "{text}");
    assert!(text.contains("event: telemetry\n"), "{text}");

    api.stop.cancel();
    while let Some(part) = stream.next().await {
        text.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
    }
    assert!(text.trim_end().ends_with("\"reason\":\"the host stops\"}"), "{text}");

    let many = vec!["node/a"; 17].join(",");
    assert_eq!(api.get(&format!("/api/v1/events?subjects={many}"), &token).await.problem(), "AE0009");
}

#[tokio::test]
async fn streams_are_bounded_and_a_closed_one_gives_its_place_back() {
    let api = Api::start().await;
    let token = api.token(Rank::Viewer).await;
    let open = || api.router.clone().oneshot(request("GET", "/api/v1/events", Some(&token), None));
    let mut streams = Vec::new();
    for _ in 0..api::STREAMS_MAXIMUM {
        let response = open().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        streams.push(response.into_body());
    }
    let refused = open().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    streams.pop();
    // The place is free as soon as the stream's task has seen that nobody listens.
    let mut status = StatusCode::SERVICE_UNAVAILABLE;
    while status == StatusCode::SERVICE_UNAVAILABLE {
        tokio::task::yield_now().await;
        status = open().await.unwrap().status();
    }
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn every_answer_tells_a_browser_what_it_may_do() {
    let api = Api::start().await;
    for path in ["/", "/incidents/inc-1", "/api/v1/nodes", "/healthz", "/missing.js"] {
        let answer = api.call("GET", path, None, None).await;
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(answer.headers.contains_key(header::CACHE_CONTROL));
    }
    // The page answers at its own places, with itself or with a sentence; a file that is not there is not there.
    let (root, place) = (api.call("GET", "/", None, None).await, api.call("GET", "/incidents/inc-1", None, None).await);
    assert_eq!((root.status, &root.text), (place.status, &place.text));
    assert!(root.text.contains("<div id=\"root\">") || root.text.contains("make ui"), "{}", root.text);
    assert_eq!(api.call("GET", "/missing.js", None, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(api.call("POST", "/", None, Some(json!({}))).await.problem(), "AE0006");
}

#[tokio::test]
async fn only_the_newest_sessions_of_a_token_are_kept() {
    let api = Api::start().await;
    let (_, info) = auth::issue(&api.store, "ann", Rank::Viewer, "test", clock::now(), None).await.unwrap();
    let (now, ends) = (clock::now(), clock::now().plus_ms(60_000));
    let hash = |number: u32| Digest::of(&number.to_le_bytes());
    for number in 0..=store::tokens::SESSIONS_PER_TOKEN {
        api.store.create_session(&info.id, &hash(number), now, ends).await.unwrap();
    }
    assert!(api.store.session(&hash(0), now).await.unwrap().is_none(), "the oldest went");
    assert!(api.store.session(&hash(1), now).await.unwrap().is_some());
    assert!(api.store.session(&hash(1), ends).await.unwrap().is_none(), "it ends when it ends");
    let nobody = PrincipalId::new("token-none");
    assert!(api.store.create_session(&nobody, &hash(99), now, ends).await.is_err());
}
