//! A real local fleet for tests: the server, agents and workload as processes, on a free loopback port, in a temporary
//! folder. Whatever was started is ended by pid when the fleet is dropped.

use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long anything may take that a user would wait for. Generous, since machines are shared; never slept through.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Fleet {
    folder: tempfile::TempDir,
    pub(crate) url: String,
    /// What clients trust, where the fleet speaks TLS.
    certificate: Option<PathBuf>,
    /// Agents that start from now on only pretend to act.
    pub(crate) simulate: bool,
    /// Agents that start from now on have no more privileges than systemd gives them by the unit that ships.
    pub(crate) confined: bool,
    /// Further words of the demo workload's command.
    pub(crate) workload: Vec<String>,
    /// Further lines of the files of agents that start from now on: settings, and settings of drills.
    pub(crate) settings: [String; 2],
    /// Further variables of those agents.
    pub(crate) environment: Vec<(String, String)>,
    host: Option<Child>,
    agents: Vec<(String, Child)>,
    client: reqwest::Client,
    token: String,
}

/// The binary under test; nextest says where it is when the tests were built elsewhere.
fn aether() -> PathBuf {
    std::env::var_os("NEXTEST_BIN_EXE_aether").map_or_else(|| env!("CARGO_BIN_EXE_aether").into(), PathBuf::from)
}

/// A program that stands beside the test's own.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = aether().with_file_name(name);
    assert!(path.exists(), "{} is not built: run `make build`", path.display());
    path
}

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Whether the policy asks a person before a plan runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Approval {
    Asked,
    Unasked,
}

impl Approval {
    /// The default bundle, or a copy in `folder` whose gate allows what the default one asks about.
    fn bundle(self, folder: &Path) -> PathBuf {
        let shipped = workspace().join("policies/default");
        if self == Approval::Asked {
            return shipped;
        }
        let copy = folder.join("policy");
        fs::create_dir_all(copy.join("fixtures")).unwrap();
        let text = fs::read_to_string(shipped.join("policy.toml")).unwrap();
        let gate = "component = \"default-gate\"\n";
        let allow = "{ verdict = \"allow\" }";
        let allowing = format!("{gate}config = {{ reversible = {allow}, impactful = {allow} }}\n");
        assert_eq!(text.matches(gate).count(), 1);
        fs::write(copy.join("policy.toml"), text.replace(gate, &allowing)).unwrap();
        copy
    }
}

impl Fleet {
    /// A server with the posture of the local fleet: live, with approval, up to impactful.
    pub(crate) async fn start() -> Self {
        Self::launch(false, "", "", Approval::Asked, None).await
    }

    /// The same, with more of the posture and more sections.
    #[allow(dead_code, reason = "each test's binary has this module, and not each asks for more")]
    pub(crate) async fn start_with(posture: &str, sections: &str) -> Self {
        Self::launch(false, posture, sections, Approval::Asked, None).await
    }

    /// A server whose policy lets every plan up to impactful run without a person.
    #[allow(dead_code, reason = "each test's binary has this module, and not each asks for more")]
    pub(crate) async fn start_unasked(sections: &str) -> Self {
        Self::launch(false, "", sections, Approval::Unasked, None).await
    }

    /// The usual one with another policy; `sections` begins within `[control]`.
    #[allow(dead_code, reason = "each test's binary has this module, and not each brings a policy")]
    pub(crate) async fn start_with_bundle(bundle: &Path, sections: &str) -> Self {
        Self::launch(false, "", sections, Approval::Asked, Some(bundle)).await
    }

    /// The same, with a certificate of its own.
    pub(crate) async fn start_with_tls() -> Self {
        Self::launch(true, "", "", Approval::Asked, None).await
    }

    async fn launch(tls: bool, posture: &str, sections: &str, approval: Approval, bundle: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle.map_or_else(|| approval.bundle(folder.path()), Path::to_owned);
        let (certificate, key) = (folder.path().join("host.pem"), folder.path().join("host.key.pem"));
        let mut settings = String::new();
        let mut client = reqwest::Client::builder().timeout(Duration::from_secs(20));
        if tls {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
            fs::write(&certificate, made.cert.pem()).unwrap();
            fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            settings = format!("tls_cert = \"{}\"\ntls_key = \"{}\"\n", certificate.display(), key.display());
            client = client.add_root_certificate(reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = workspace();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\ndata_dir = \"{data}\"\n{settings}\
             [policy]\nbundle_dir = \"{bundle}\"\nplugins_dir = \"{plugins}\"\n\
             [posture]\ndry_run = false\napproval_required = {asked}\nhighest_live_class = \"impactful\"\n\
             {posture}\n[recorder]\nseal_interval_ms = {seal_ms}\n[control]\ngrace_ms = 1000\n{sections}\n",
            data = folder.path().join("host").display(),
            bundle = bundle.display(),
            asked = approval == Approval::Asked,
            // What is measured has the interval that ships; what is tested does not wait for it.
            seal_ms = if approval == Approval::Unasked { 10_000 } else { 1_000 },
            plugins = root.join("build/plugins").display(),
        );
        fs::write(folder.path().join("aether.toml"), config).unwrap();
        // Another test of this process may have chosen it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = client.build().unwrap();
        let url = format!("{}://127.0.0.1:{port}", if tls { "https" } else { "http" });
        let certificate = tls.then_some(certificate);
        let mut fleet = Self {
            folder,
            url,
            certificate,
            simulate: false,
            confined: false,
            workload: vec![],
            settings: Default::default(),
            environment: vec![],
            host: None,
            agents: vec![],
            client,
            token: String::new(),
        };
        fleet.start_host().await;
        fleet
    }

    pub(crate) async fn start_host(&mut self) {
        assert!(self.host.is_none());
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("host.log")).unwrap();
        let child = Command::new(aether())
            .args(["serve", "--config"])
            .arg(self.folder.path().join("aether.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.host = Some(child);
        let ready = self.until("the server is ready", async |fleet| {
            fleet
                .client
                .get(format!("{}/readyz", fleet.url))
                .send()
                .await
                .is_ok_and(|r| r.status().is_success())
                .then_some(())
        });
        ready.await;
        self.token = fs::read_to_string(self.folder.path().join("host/admin.token")).unwrap().trim().to_string();
    }

    /// kill -9.
    pub(crate) fn kill_host(&mut self) {
        let mut host = self.host.take().unwrap();
        host.kill().unwrap();
        host.wait().unwrap();
    }

    pub(crate) fn kill_agent(&mut self, node: &str) {
        let index = self.agents.iter().position(|(name, _)| name == node).unwrap();
        let (_, mut agent) = self.agents.remove(index);
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Where everything of this fleet lies: `host/`, and a folder for each agent.
    #[allow(dead_code, reason = "each test's binary has this module, and not each looks into the folder")]
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    #[allow(dead_code, reason = "each test's binary has this module, and not each kills by pid")]
    pub(crate) fn host_pid(&self) -> u32 {
        self.host.as_ref().unwrap().id()
    }

    #[allow(dead_code, reason = "each test's binary has this module, and not each kills by pid")]
    pub(crate) fn agent_pid(&self, node: &str) -> u32 {
        self.agents.iter().find(|(name, _)| name == node).unwrap().1.id()
    }

    pub(crate) fn progress_file(&self) -> PathBuf {
        self.folder.path().join("progress.txt")
    }

    /// Starts an agent and waits for its session. `workload`: it starts the demo workload, once.
    pub(crate) async fn start_agent(&mut self, node: &str, workload: bool) {
        let state = self.folder.path().join(node);
        fs::create_dir_all(&state).unwrap();
        let config = self.folder.path().join(format!("{node}.toml"));
        if !config.exists() {
            let made = self.post("/api/v1/join-tokens", json!({ "node": node })).await;
            let token = made["token"].as_str().unwrap_or_else(|| panic!("no token in {made}"));
            let token_file = self.folder.path().join(format!("{node}.join-token"));
            fs::write(&token_file, token).unwrap();
            let mut text = format!(
                "node = \"{node}\"\nhost = \"{}\"\nstate = \"{}\"\njoin_token_file = \"{}\"\n",
                self.url,
                state.display(),
                token_file.display()
            );
            if self.simulate {
                // Before the first table of the file.
                text.push_str("simulate = true\n");
            }
            if let Some(certificate) = &self.certificate {
                text.push_str(&format!("host_ca = \"{}\"\n", certificate.display()));
            }
            text.push_str(&format!("{}[drill]\nallowed = true\n{}", self.settings[0], self.settings[1]));
            if workload {
                text.push_str(&format!(
                    "[[workloads]]\nid = \"demo-counter\"\nname = \"Demo counter\"\ntier = \"standard\"\n\
                     command = [\"{}\", \"--file\", \"{file}\"{words}]\nprogress_file = \"{file}\"\n",
                    program("aether-demo-workload").display(),
                    words = self.workload.iter().map(|word| format!(", \"{word}\"")).collect::<String>(),
                    file = self.progress_file().display()
                ));
            }
            fs::write(&config, text).unwrap();
        }
        let log =
            fs::File::options().create(true).append(true).open(self.folder.path().join(format!("{node}.log"))).unwrap();
        let child = self
            .agent()
            .args(["run", "--config"])
            .arg(&config)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agents.push((node.into(), child));
        self.until(&format!("{node} is live"), async |fleet| {
            (fleet.get(&format!("/api/v1/nodes/{node}")).await["live"] == true).then_some(())
        })
        .await;
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.token).send().await;
        match response {
            Ok(response) => response.json().await.unwrap_or(Value::Null),
            Err(_) => Value::Null,
        }
    }

    #[allow(dead_code, reason = "not every program of tests reads what is no JSON")]
    pub(crate) async fn text(&self, path: &str) -> String {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    #[allow(dead_code, reason = "not every program of tests asks for more than documents")]
    pub(crate) fn authorised(&self, method: reqwest::Method, url: &str) -> reqwest::RequestBuilder {
        self.client.request(method, url).bearer_auth(&self.token)
    }

    /// The host's folder.
    #[allow(dead_code, reason = "not every program of tests looks into it")]
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_post(path, body).await;
        assert!(status.is_success(), "POST {path}: {status}: {answer}");
        answer
    }

    pub(crate) async fn try_post(&self, path: &str, body: Value) -> (reqwest::StatusCode, Value) {
        let response =
            self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.token).json(&body).send().await.unwrap();
        (response.status(), response.json().await.unwrap_or(Value::Null))
    }

    /// A request that may find nobody.
    #[allow(dead_code, reason = "each test's binary has this module, and not each kills the host")]
    pub(crate) async fn might_post(&self, path: &str, body: Value) {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.token).json(&body);
        let _ = request.send().await;
    }

    /// Asks until there is an answer, or fails with the logs.
    pub(crate) async fn until<T>(&self, what: &str, ask: impl AsyncFn(&Self) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(answer) = ask(self).await {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs the CLI against this fleet.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new(aether())
            .args(arguments)
            .env("AETHER_URL", &self.url)
            .env("AETHER_TOKEN", &self.token)
            .envs(self.certificate.iter().map(|path| ("AETHER_CA", path)))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "aether {arguments:?}: {}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The agent's program; where it is confined, within what its unit grants.
    fn agent(&self) -> Command {
        let agent = program("aether-agent");
        if !self.confined {
            return Command::new(agent);
        }
        let unit = fs::read_to_string(workspace().join("agent/systemd/aether-agent.service")).unwrap();
        let granted = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let granted = granted.flat_map(str::split_whitespace).filter_map(|name| name.strip_prefix("CAP_"));
        let granted: String = granted.map(|name| format!(",+{}", name.to_lowercase())).collect();
        let mut confined = Command::new("setpriv");
        confined.arg("--bounding-set").arg(format!("-all{granted}")).arg(agent);
        confined
    }

    /// Those that a test brings about, newest first. The agents are real: what the tests beside it do to this machine is
    /// found as well, as trouble of the node's own.
    pub(crate) async fn incidents(&self) -> Vec<Value> {
        let mut page = self.get("/api/v1/incidents").await;
        let Value::Array(mut incidents) = page["incidents"].take() else { return vec![] };
        incidents.retain(|incident| {
            let cause = incident["shape"]["cause"].as_str().unwrap();
            !["host.", "gpu.", "anomaly.", "model."].iter().any(|of_the_machine| cause.starts_with(of_the_machine))
        });
        incidents
    }

    /// The newest incident, once it is in one of `phases`.
    pub(crate) async fn incident_in(&self, phases: &[&str]) -> Value {
        self.until(&format!("an incident in one of {phases:?}"), async |fleet| {
            let incident = fleet.incidents().await.into_iter().next()?;
            phases.contains(&incident["phase"].as_str()?).then_some(incident)
        })
        .await
    }

    pub(crate) async fn incident(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/incidents/{id}")).await
    }

    /// The newest count that the workload wrote.
    pub(crate) fn progress(&self) -> u64 {
        self.counts().last().copied().unwrap_or(0)
    }

    /// Each count follows the one before: the workload never lost what it had in memory, nor ran twice.
    pub(crate) fn counts_each_once(&self) {
        let counts = self.counts();
        if let Some(at) = counts.windows(2).position(|pair| pair[1] != pair[0] + 1) {
            let around = &counts[at.saturating_sub(5)..counts.len().min(at + 10)];
            let text = fs::read_to_string(self.progress_file());
            panic!("counts {at} and the next of {} do not follow: {around:?}\n{text:?}\n{}", counts.len(), self.logs());
        }
    }

    fn counts(&self) -> Vec<u64> {
        let Ok(file) = fs::File::open(self.progress_file()) else { return vec![] };
        BufReader::new(file)
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect()
    }

    /// Waits until the workload has counted on.
    pub(crate) async fn counts_on(&self) {
        let from = self.progress();
        self.until("the workload counts on", async |fleet| (fleet.progress() > from + 3).then_some(())).await;
    }

    /// Waits until both nodes are scored, and sampled from now on: a plan that moves between them needs both, and a host
    /// that was just killed has neither.
    pub(crate) async fn known(&self) {
        let since = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        for node in ["node-a", "node-b"] {
            self.until("both nodes are known well enough to move between them", async |fleet| {
                let series = fleet.get(&format!("/api/v1/nodes/{node}/series")).await;
                let memory = |series: &&Value| series["key"]["metric"] == "system.memory.utilization";
                let sampled = series.as_array()?.iter().find(memory)?["last"].as_i64()? >= since;
                let risks = fleet.get("/api/v1/risks").await;
                let risk = risks.as_array()?.iter().find(|risk| risk["subject"]["id"] == node)?;
                (sampled && risk["risk"].is_object()).then_some(())
            })
            .await;
        }
    }

    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["host.log", "node-a.log", "node-b.log"] {
            let log = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            text.push_str(&format!("---- {name}\n{}\n", lines[lines.len().saturating_sub(60)..].join("\n")));
        }
        text
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (_, agent) in &mut self.agents {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if let Some(host) = &mut self.host {
            let _ = host.kill();
            let _ = host.wait();
        }
        end_workloads(&self.progress_file());
    }
}

/// Ends what runs with this progress file: the workload outlives its agents on purpose.
pub(crate) fn end_workloads(file: &Path) {
    let wanted = file.as_os_str().as_encoded_bytes();
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Ok(command) = fs::read(process.path().join("cmdline")) else { continue };
        let ours = command.split(|byte| *byte == 0).any(|argument| argument == wanted);
        let pid = process.file_name().to_string_lossy().parse::<i32>().ok().and_then(rustix::process::Pid::from_raw);
        if let (true, Some(pid)) = (ours, pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
