//! A fleet on which one migration after the other is made and cut into, to and fro.

use super::{
    Who,
    fleet::{Fleet, PATIENCE, workspace},
    witness::{self, Journal, Lookout, Trap},
};
use serde_json::{Value, json};
use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

/// So that what is tried again and again is not held back, and nothing waits for longer than it must.
const SECTIONS: &str = "tick_ms = 300\nrelapse_within_ms = 0\n[hysteresis]\nraise_after = 1\nclear_after = 1\n\
    [guard]\nattempts = 1000\ncooldown_ms = 0\nattempts_per_rung = 0\n\
    [breakers]\nnode = { count = 10000, percent = 100 }\nfleet = { count = 10000, percent = 100 }";

/// How one run ended.
pub(crate) struct Ran {
    /// The last numbered step in the victim's journal at its death. None: it was over before it came so far.
    pub(crate) killed_at: Option<&'static str>,
    pub(crate) resolution: String,
    /// Two copies ran side by side.
    pub(crate) twice: bool,
    /// No copy runs, or counts are missing.
    pub(crate) lost: bool,
    /// The report says so, and where.
    pub(crate) said: bool,
    /// Counts that came a second time: what a copy did that was discarded.
    pub(crate) again: u64,
    /// Orders that were taken, or ended, more than once.
    pub(crate) repeated: Vec<String>,
}

impl Ran {
    pub(crate) fn told(&self) -> String {
        let Ran { killed_at, resolution, twice, lost, said, again, repeated } = self;
        format!(
            "killed at {killed_at:?}, {resolution}, twice: {twice}, lost: {lost}, said: {said}, counted again: {again}, repeated: {repeated:?}"
        )
    }

    pub(crate) fn is_bad(&self) -> bool {
        let done = self.resolution == "resolved";
        self.twice || (self.lost && !self.said) || !self.repeated.is_empty() || (done && (self.lost || self.again > 0))
    }
}

pub(crate) struct Scene {
    fleet: Fleet,
    bundle: tempfile::TempDir,
    /// Where the workload is.
    here: &'static str,
    there: &'static str,
    seen: Vec<String>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let bundle = tempfile::tempdir().unwrap();
        let policy = workspace().join("policies/default");
        let text = fs::read_to_string(policy.join("policy.toml")).unwrap();
        let text = text.replace("watch_ms = 10000", "watch_ms = 1500");
        // What failed here failed because somebody was killed: it must not count against the next one.
        let gate = "component = \"default-gate\"";
        let text = text.replace(gate, &format!("{gate}\nconfig = {{ failures_maximum = 1000 }}"));
        assert!(
            text.contains("watch_ms = 1500") && text.contains("= 1000"),
            "the default policy names things otherwise now"
        );
        fs::write(bundle.path().join("policy.toml"), text).unwrap();
        let fleet = Self::fleet(&bundle).await;
        Self { fleet, bundle, here: "node-a", there: "node-b", seen: vec![] }
    }

    async fn fleet(bundle: &tempfile::TempDir) -> Fleet {
        let mut fleet = Fleet::start_with_bundle(bundle.path(), SECTIONS).await;
        fleet.start_agent("node-a", true).await;
        fleet.start_agent("node-b", false).await;
        fleet.counts_on().await;
        fleet
    }

    /// One migration, with a kill as soon as `step` is in the journal of `who`.
    pub(crate) async fn run(&mut self, who: Who, step: &'static str) -> Ran {
        self.fleet.known().await;
        let file = self.fleet.progress_file();
        let from = fs::metadata(&file).map_or(0, |meta| usize::try_from(meta.len()).unwrap());
        let lookout = Lookout::begin(file.clone());
        let (state, pid) = match who {
            Who::Host => (self.fleet.folder().join("host"), self.fleet.host_pid()),
            Who::Source => (self.fleet.folder().join(self.here), self.fleet.agent_pid(self.here)),
            Who::Target => (self.fleet.folder().join(self.there), self.fleet.agent_pid(self.there)),
        };
        let journal = tokio::task::spawn_blocking(move || match who {
            Who::Host => Journal::host(&state),
            Who::Source | Who::Target => Journal::agent(&state),
        });
        let journal = Arc::new(journal.await.unwrap());
        let trap = Trap::set(journal.clone(), step, pid);
        self.signal(self.here, "rebalance").await;

        let mut trap = Some(trap);
        let mut killed_at = None;
        let begun = Instant::now();
        let detail = loop {
            assert!(begun.elapsed() < PATIENCE, "{who:?} at `{step}`: no end\n{}", self.fleet.logs());
            if let Some(sprung) = trap.take_if(|trap| trap.sprung()) {
                assert!(sprung.take_away(), "it could not be killed");
                let entries = tokio::task::spawn_blocking({
                    let journal = journal.clone();
                    move || journal.entries()
                });
                killed_at = witness::reached(who, &entries.await.unwrap());
                self.begin_again(who).await;
            }
            if let Some(detail) = self.closed().await {
                break detail;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if let Some(trap) = trap {
            trap.take_away();
        }
        let resolution = detail["incident"]["resolution"].as_str().unwrap().to_owned();
        let said = self.says_where(&resolution, &detail);
        let mut alone = witness::running(&file).len() == 1;
        let patience = if said { Duration::from_secs(2) } else { Duration::from_secs(30) };
        let waiting = Instant::now();
        while !alone && waiting.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(100)).await;
            alone = witness::running(&file).len() == 1;
        }
        if alone {
            self.fleet.counts_on().await;
        }
        let twice = lookout.end();
        let (missing, again) = witness::counts(&file, from);
        let journals = ["node-a", "node-b"].map(|node| self.fleet.folder().join(node).join("journal/journal"));
        let ran = Ran {
            killed_at,
            resolution,
            twice,
            lost: missing || !alone,
            said,
            again,
            repeated: witness::repeated(&journals),
        };
        if ran.is_bad() || ran.killed_at.is_none() {
            eprintln!("{who:?} at `{step}`: {}\n{detail:#}\n{}", ran.told(), self.fleet.logs());
        }
        self.tidy(&ran).await;
        ran
    }

    async fn signal(&self, node: &str, kind: &str) {
        let body = json!({ "node": node, "drill": "crash", "prices": [], "notices": [{ "kind": kind }] });
        self.fleet.post("/api/v1/signals", body).await;
    }

    async fn begin_again(&mut self, who: Who) {
        let node = match who {
            Who::Host => {
                self.fleet.kill_host();
                self.fleet.start_host().await;
                // What was taken back there a moment ago was perhaps not sealed yet.
                return self.signal(self.there, "rebalance_cleared").await;
            }
            Who::Source => self.here,
            Who::Target => self.there,
        };
        self.fleet.kill_agent(node);
        self.fleet.start_agent(node, node == "node-a").await;
    }

    /// Approves what waits; gives the incident once it is closed.
    async fn closed(&mut self) -> Option<Value> {
        let page = self.fleet.get("/api/v1/incidents").await;
        let new = |incident: &&Value| {
            incident["shape"]["subject"]["id"] == self.here
                && self.seen.iter().all(|seen| incident["id"] != seen.as_str())
        };
        let incident = page["incidents"].as_array()?.iter().find(new)?.clone();
        if incident["phase"] == "awaiting_approval" {
            let path = format!("/api/v1/plans/{}/approve", incident["plan"].as_str()?);
            self.fleet.might_post(&path, json!({})).await;
        }
        let id = incident["id"].as_str()?;
        (incident["phase"] == "closed").then_some(())?;
        let detail = self.fleet.incident(id).await;
        detail["incident"]["resolution"].as_str()?;
        self.seen.push(id.to_owned());
        Some(detail)
    }

    /// Whether the report calls a person to one of the nodes.
    fn says_where(&self, resolution: &str, detail: &Value) -> bool {
        let report = detail["artifacts"].as_array().and_then(|all| all.last()).map(Value::to_string);
        let names = report.is_some_and(|report| report.contains(self.here) || report.contains(self.there));
        ["unknown", "stuck"].contains(&resolution) && names
    }

    /// Makes ready for the next one: the signal is taken back, and the workload is where it is.
    async fn tidy(&mut self, ran: &Ran) {
        let known = match ran.resolution.as_str() {
            "resolved" | "not_verified" => {
                std::mem::swap(&mut self.here, &mut self.there);
                true
            }
            "undone" | "refused" => true,
            _ => false,
        };
        if !known || ran.is_bad() {
            // Somebody would have to look: another fleet takes its place.
            self.fleet = Self::fleet(&self.bundle).await;
            (self.here, self.there) = ("node-a", "node-b");
            self.seen.clear();
            return;
        }
        let (left, now) = if ran.resolution == "undone" || ran.resolution == "refused" {
            (self.here, self.here)
        } else {
            (self.there, self.here)
        };
        let body =
            json!({ "node": left, "drill": "crash", "prices": [], "notices": [{ "kind": "rebalance_cleared" }] });
        self.fleet.post("/api/v1/signals", body).await;
        self.fleet
            .until("all is calm, and the workload runs", async |fleet| {
                let risks = fleet.get("/api/v1/risks").await;
                let risk = risks.as_array()?.iter().find(|risk| risk["subject"]["id"] == left)?;
                let calm = risk["risk"].is_object() && risk["risk"]["level"] != "critical";
                let workloads = fleet.get("/api/v1/workloads").await;
                let runs = workloads.as_array()?.iter().any(|w| w["node"] == now && w["state"] == "running");
                (calm && runs).then_some(())
            })
            .await;
    }
}
