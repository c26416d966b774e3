//! Who may let a plan run, over the real API: many words at once have one outcome, break-glass is told and reviewed, a
//! breaker holds back until somebody looks. Executors are simulated; what is looked at is what the host lets happen.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and a fleet of processes is waited for by the clock"
)]
#![allow(dead_code, reason = "a fleet for the tests of incidents, too")]

mod fleet;

use fleet::Fleet;
use reqwest::StatusCode;
use serde_json::{Value, json};

async fn pretending(mut fleet: Fleet) -> (Fleet, String, String) {
    fleet.simulate = true;
    fleet.start_agent("node-a", true).await;
    fleet.start_agent("node-b", false).await;
    let placed = fleet.until("the workload is known", async |fleet| {
        let workloads = fleet.get("/api/v1/workloads").await;
        workloads.as_array().is_some_and(|all| !all.is_empty()).then_some(())
    });
    placed.await;
    fleet.cli(&["drill", "start", "spot-reclaim", "--node", "node-a"]);
    let incident = fleet.incident_in(&["awaiting_approval"]).await;
    let (id, plan) = (incident["id"].as_str().unwrap().into(), incident["plan"].as_str().unwrap().into());
    (fleet, id, plan)
}

async fn token(fleet: &Fleet, name: &str, rank: &str) -> String {
    let made = fleet.post("/api/v1/tokens", json!({ "name": name, "rank": rank })).await;
    made["token"].as_str().unwrap().into()
}

async fn say(url: &str, token: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let request = reqwest::Client::new().post(format!("{url}/api/v1/{path}")).bearer_auth(token).json(&body);
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap_or(Value::Null))
}

async fn closed(fleet: &Fleet, id: &str) -> Value {
    fleet
        .until("the incident closes", async |fleet| {
            let detail = fleet.incident(id).await;
            (detail["incident"]["phase"] == "closed").then_some(detail)
        })
        .await
}

/// How often the audit has each of these, done.
async fn done(fleet: &Fleet, actions: &[&str]) -> Vec<usize> {
    let page = fleet.get("/api/v1/audit?limit=200&verify=true").await;
    assert_eq!(page["chain_verified"], true, "{page:#}");
    let entries = page["entries"].as_array().unwrap();
    let count = |action: &&str| entries.iter().filter(|e| e["action"] == **action && e["outcome"] == "done").count();
    actions.iter().map(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_approvals_and_denials_at_once_have_one_outcome() {
    let (fleet, id, plan) = pretending(Fleet::start().await).await;
    let mut people = Vec::new();
    for n in 0..24 {
        people.push(token(&fleet, &format!("p{n}"), "approver").await);
    }
    let words = people.iter().enumerate().map(|(n, token)| {
        let deed = if n % 2 == 0 { "approve" } else { "deny" };
        let (url, path) = (fleet.url.clone(), format!("plans/{plan}/{deed}"));
        async move { (deed, say(&url, token, &path, json!({ "comment": "now" })).await.0) }
    });
    let answers = futures::future::join_all(words).await;
    let taken: Vec<&str> =
        answers.iter().filter(|(_, status)| *status == StatusCode::OK).map(|(deed, _)| *deed).collect();
    assert_eq!(taken.len(), 1, "one word counts, and the others are told so: {answers:?}");
    assert!(answers.iter().all(|(_, status)| [StatusCode::OK, StatusCode::CONFLICT].contains(status)), "{answers:?}");
    let detail = closed(&fleet, &id).await;
    let counted = done(&fleet, &["plan.approve", "plan.deny", "step.dispatch"]).await;
    if taken == ["approve"] {
        assert_eq!((&counted[..2], detail["approvals"].as_array().unwrap().len()), (&[1, 0][..], 1));
        assert_ne!(detail["incident"]["resolution"], "denied_by_person");
    } else {
        assert_eq!(counted, [0, 1, 0], "denied, and nothing was sent");
        assert_eq!(detail["incident"]["resolution"], "denied_by_person");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn break_glass_stands_for_two_and_an_open_breaker_still_holds() {
    let posture = "demands = { impactful = { approvers = 2, role = \"approver\", comment = true } }";
    let breakers = "[breakers]\nfleet = { count = 0, percent = 100 }";
    let (mut fleet, id, plan) = pretending(Fleet::start_with(posture, breakers).await).await;
    let (ann, ben) = (token(&fleet, "ann", "approver").await, token(&fleet, "ben", "approver").await);
    let url = fleet.url.clone();
    let approve = format!("plans/{plan}/approve");

    let (status, problem) = say(&url, &ben, &approve, json!({})).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some("AE0020")), "no comment: {problem}");
    assert_eq!(say(&url, &ben, &approve, json!({ "comment": "looked" })).await.0, StatusCode::OK);
    assert_eq!(fleet.incident(&id).await["incident"]["phase"], "awaiting_approval", "one of two");

    // Taken back, with the reason in the audit, and given again.
    let withdraw = format!("plans/{plan}/withdraw");
    let taken_back = json!({ "comment": "the wrong plan" });
    assert_eq!(say(&url, &ben, &withdraw, taken_back.clone()).await.0, StatusCode::OK);
    assert_eq!(say(&url, &ben, &withdraw, taken_back).await.0, StatusCode::CONFLICT, "there is nothing to take back");
    assert_eq!(fleet.incident(&id).await["approvals"].as_array().unwrap().len(), 0);
    let audit = fleet.get("/api/v1/audit?limit=50").await;
    let told = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["action"] == "plan.withdraw" && entry["outcome"] == "done");
    assert_eq!(told.unwrap()["detail"]["comment"], "the wrong plan");
    assert_eq!(say(&url, &ben, &approve, json!({ "comment": "looked again" })).await.0, StatusCode::OK);

    let alone = json!({ "comment": "nobody else is awake", "break_glass": true });
    let (status, problem) = say(&url, &ann, &approve, alone.clone()).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some("AE0091")), "{problem}");
    let nine_hours = json!({ "reason": "r", "valid_for_ms": 9 * 3_600_000 });
    assert_eq!(say(&url, &ann, "break-glass", nine_hours).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, glass) = say(&url, &ann, "break-glass", json!({ "reason": "the node goes in two minutes" })).await;
    assert_eq!(status, StatusCode::CREATED, "{glass}");
    let hour = glass["expires_at"].as_i64().unwrap() - glass["opened_at"].as_i64().unwrap();
    assert_eq!(hour, 3_600_000);
    assert_eq!(say(&url, &ann, "break-glass", json!({ "reason": "again" })).await.0, StatusCode::CONFLICT);
    assert_eq!(say(&url, &ann, &approve, alone).await.0, StatusCode::OK);

    // It was approved; the breaker of the fleet lets nothing begin, and says so.
    let detail = closed(&fleet, &id).await;
    assert_eq!(detail["incident"]["resolution"], "refused", "{detail:#}");
    assert!(detail["failure"].as_str().unwrap().contains("the breaker of fleet is open"), "{detail:#}");
    let open = fleet.get("/api/v1/status").await["open_breakers"].clone();
    assert_eq!((open.as_array().unwrap().len(), open[0]["scope"]["kind"].as_str()), (1, Some("fleet")), "{open}");

    // A restart forgets neither.
    fleet.kill_host();
    fleet.start_host().await;
    assert!(fleet.cli(&["breaker", "list"]).contains("open since"));
    let viewer = token(&fleet, "vic", "viewer").await;
    let reset = json!({ "scope": "fleet", "comment": "the limit was meant for a test" });
    assert_eq!(say(&url, &viewer, "breakers/reset", reset).await.0, StatusCode::FORBIDDEN);
    fleet.cli(&["breaker", "reset", "fleet", "--comment", "the limit was meant for a test"]);
    assert_eq!(fleet.get("/api/v1/status").await["open_breakers"], json!([]));
    let (status, problem) = say(&url, &ann, "breakers/reset", json!({ "scope": "fleet", "comment": "again" })).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some("AE0092")), "{problem}");

    // What was approved under it is named, and its review is owed until somebody else has done it.
    let owed = fleet.get("/api/v1/status").await["break_glass"].clone();
    assert_eq!((owed.as_array().unwrap().len(), owed[0]["plans"].clone()), (1, json!([plan])), "{owed}");
    let glass = glass["id"].as_str().unwrap();
    let review = format!("break-glass/{glass}/review");
    let word = json!({ "comment": "it was right" });
    assert_eq!(say(&url, &ann, &review, word.clone()).await.0, StatusCode::CONFLICT, "her own");
    assert_eq!(say(&url, &ben, &review, word.clone()).await.0, StatusCode::CONFLICT, "still open");
    assert_eq!(say(&url, &ben, &format!("break-glass/{glass}/end"), json!({})).await.0, StatusCode::CONFLICT);
    assert_eq!(say(&url, &ann, &format!("break-glass/{glass}/end"), json!({})).await.0, StatusCode::OK);
    assert_eq!(say(&url, &ben, &review, word.clone()).await.0, StatusCode::OK);
    assert_eq!(say(&url, &ben, &review, word).await.0, StatusCode::CONFLICT, "once");
    assert_eq!(fleet.get("/api/v1/status").await["break_glass"], json!([]));
    assert!(fleet.cli(&["break-glass", "list"]).contains("reviewed by ben"));
    let actions =
        ["break-glass.open", "break-glass.end", "break-glass.review", "breaker.open", "breaker.reset", "step.dispatch"];
    assert_eq!(done(&fleet, &actions).await, [1, 1, 1, 1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_is_called_off_while_it_can_be_and_what_was_done_is_undone() {
    let mut fleet = Fleet::start().await;
    fleet.start_agent("node-a", true).await;
    fleet.start_agent("node-b", false).await;
    fleet.counts_on().await;
    fleet.cli(&["drill", "start", "spot-reclaim", "--node", "node-a"]);
    let incident = fleet.incident_in(&["awaiting_approval"]).await;
    let (id, plan) = (incident["id"].as_str().unwrap(), incident["plan"].as_str().unwrap());
    let (ann, url) = (token(&fleet, "ann", "operator").await, fleet.url.clone());
    let call_off = format!("plans/{plan}/call-off");
    let word = json!({ "comment": "the job ends tonight" });
    let (status, problem) = say(&url, &ann, &call_off, word.clone()).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem["detail"].as_str().unwrap().contains("deny the plan instead"), "{problem}");
    assert_eq!(say(&url, &ann, &call_off, json!({})).await.0, StatusCode::UNPROCESSABLE_ENTITY, "without a comment");

    // The node that would restore it is away, so the second step waits; until then the source stands still.
    fleet.kill_agent("node-b");
    fleet.post(&format!("/api/v1/plans/{plan}/approve"), json!({})).await;
    fleet
        .until("the checkpoint is done", async |fleet| {
            let detail = fleet.incident(id).await;
            (detail["steps"][0]["outcome"]["status"] == "succeeded").then_some(())
        })
        .await;
    assert_eq!(say(&url, &ann, &call_off, word.clone()).await.0, StatusCode::OK);
    assert_eq!(say(&url, &ann, &call_off, word).await.0, StatusCode::CONFLICT, "once");
    // Its order never went out, so that it is known at once that no copy is to be looked for.
    let detail = closed(&fleet, id).await;
    assert_eq!(detail["incident"]["resolution"], "undone", "{detail:#}\n{}", fleet.logs());
    assert_eq!(detail["steps"][1]["outcome"]["code"], "order.cancelled", "{detail:#}");
    fleet.start_agent("node-b", false).await;
    fleet.counts_on().await;
    fleet.counts_each_once();
    assert_eq!(done(&fleet, &["plan.call-off"]).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_cordon_keeps_a_node_out_over_restarts_and_only_a_person_lifts_it() {
    let mut fleet = Fleet::start().await;
    fleet.simulate = true;
    fleet.start_agent("node-a", true).await;
    fleet.start_agent("node-b", false).await;
    let (ann, vic) = (token(&fleet, "ann", "operator").await, token(&fleet, "vic", "viewer").await);
    let url = fleet.url.clone();
    let word = json!({ "reason": "the fan is to be changed" });
    assert_eq!(say(&url, &vic, "nodes/node-b/cordon", word.clone()).await.0, StatusCode::FORBIDDEN);
    assert_eq!(say(&url, &ann, "nodes/node-z/cordon", word.clone()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        say(&url, &ann, "nodes/node-b/cordon", json!({ "reason": " " })).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let (status, node) = say(&url, &ann, "nodes/node-b/cordon", word.clone()).await;
    assert_eq!((status, node["cordon"]["name"].as_str()), (StatusCode::OK, Some("ann")), "{node}");
    let (status, problem) = say(&url, &ann, "nodes/node-b/cordon", word.clone()).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some("AE0095")), "{problem}");

    fleet.kill_host();
    fleet.start_host().await;
    let back = async |fleet: &Fleet| {
        let nodes = fleet.get("/api/v1/nodes").await;
        nodes.as_array()?.iter().all(|node| node["live"] == true).then_some(())
    };
    fleet.until("both nodes are back", back).await;
    assert!(fleet.cli(&["nodes", "show", "node-b"]).contains("cordoned by ann"), "it survives a restart");
    // The only other node is closed, so there is nowhere to go.
    fleet.cli(&["drill", "start", "spot-reclaim", "--node", "node-a"]);
    let incident = fleet.incident_in(&["closed"]).await;
    assert_eq!(incident["resolution"], "no_plan", "{incident:#}");

    fleet.cli(&["nodes", "uncordon", "node-b", "--reason", "the fan is new"]);
    assert!(!fleet.cli(&["nodes"]).contains("takes no work"));
    let (status, _) = say(&url, &ann, "nodes/node-b/uncordon", word).await;
    assert_eq!(status, StatusCode::CONFLICT, "nobody has cordoned it");
    assert_eq!(done(&fleet, &["node.cordon", "node.uncordon"]).await, [1, 1]);
}

fn now_ms() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// Waits until a node was scored so often from now on, and gives the last level.
async fn scored(fleet: &Fleet, node: &str, times: usize) -> String {
    let since = now_ms();
    let seen = std::cell::RefCell::new(std::collections::BTreeSet::new());
    fleet
        .until(&format!("{node} is scored {times} times"), async |fleet| {
            let risks = fleet.get("/api/v1/risks").await;
            let risk = risks.as_array()?.iter().find(|risk| risk["subject"]["id"] == node)?.clone();
            let at = risk["at"].as_i64()?;
            if at > since && risk["risk"].is_object() {
                seen.borrow_mut().insert(at);
            }
            (seen.borrow().len() >= times).then(|| risk["risk"]["level"].as_str().unwrap().to_owned())
        })
        .await
}

/// An old word must not become a new deed: neither one that still stands when a host starts anew, nor one that comes late.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_a_restart_and_what_comes_late_open_nothing() {
    let mut fleet = Fleet::start().await;
    fleet.simulate = true;
    fleet.start_agent("node-a", true).await;
    fleet.start_agent("node-b", false).await;
    fleet.known().await;
    let ann = token(&fleet, "ann", "approver").await;
    let url = fleet.url.clone();
    let notice = |node: &str, at: i64, deadline: i64| json!({ "node": node, "notices": [{ "kind": "termination", "at": at, "deadline": deadline }] });

    let now = now_ms();
    fleet.post("/api/v1/signals", notice("node-a", now, now + 1_800_000)).await;
    let incident = fleet.incident_in(&["awaiting_approval"]).await;
    let (id, plan) = (incident["id"].as_str().unwrap().to_owned(), incident["plan"].as_str().unwrap().to_owned());
    let word = json!({ "comment": "let it go" });
    assert_eq!(say(&url, &ann, &format!("plans/{plan}/deny"), word).await.0, StatusCode::OK);
    closed(&fleet, &id).await;

    fleet.kill_host();
    fleet.start_host().await;
    // Its feeder does not know of the restart, and says it again as it was.
    fleet.post("/api/v1/signals", notice("node-a", now, now + 1_800_000)).await;
    assert_eq!(scored(&fleet, "node-a", 6).await, "critical", "the trouble is still there, and is seen");
    // What was over before it came is history.
    let past = now_ms();
    fleet.post("/api/v1/signals", notice("node-b", past - 3_000_000, past - 2_400_000)).await;
    assert_ne!(scored(&fleet, "node-b", 6).await, "critical");
    let incidents = fleet.incidents().await;
    assert_eq!(incidents.len(), 1, "{incidents:#?}\n{}", fleet.logs());
    assert_eq!(done(&fleet, &["plan.deny", "step.dispatch"]).await, [1, 0]);

    // How people answered is reckoned from what survived.
    let gates = fleet.get("/api/v1/gates").await;
    let gate = &gates[0];
    assert_eq!(
        (gate["asked"].as_u64(), gate["denied"].as_u64(), gate["rubber_stamp"].as_f64()),
        (Some(1), Some(1), Some(0.0)),
        "{gates}"
    );
    assert!(fleet.cli(&["gates"]).contains("RUBBER STAMP"));
}
