//! Externals that misbehave in every way that the bounds are for: slow, endless, wrong, many.

use super::*;
use crate::{
    collect::source::Readings,
    process::{ProcessRef, poll},
};
use aether_core::{id::NodeId, time::Time};
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    thread,
};

fn scrape(from: Origin) -> Scrape {
    Scrape::of(External {
        name: "billing".into(),
        from,
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(10),
        output_bytes: 4_096,
        series_maximum: 3,
    })
}

fn shell(script: &str) -> Origin {
    Origin::Command("/bin/sh".into(), vec!["-c".into(), script.into()])
}

fn sample(scrape: &mut Scrape) -> (Vec<String>, Result<(), Missing>) {
    let mut readings = Readings::default();
    let node = NodeId::new("node-a");
    let result = scrape.sample(&mut Sink { node: &node, at: Time(1), readings: &mut readings });
    let line = |(key, samples): (aether_core::telemetry::SeriesKey, Vec<aether_core::telemetry::Sample>)| {
        let attributes: Vec<String> = key.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} [{}] {{{}}} {}", key.metric, key.unit, attributes.join(","), samples[0].value)
    };
    (readings.sorted().into_iter().map(line).collect(), result)
}

#[test]
fn what_a_command_prints_is_told() {
    let script = r#"echo '# TYPE jobs gauge'; echo 'jobs{queue="a"} 4'; echo 'x_bytes 1e3'; echo "env_count $(env | grep -c AETHER)""#;
    let (lines, result) = sample(&mut scrape(shell(script)));
    assert_eq!(result, Ok(()));
    assert_eq!(
        lines,
        [
            "env_count [1] {external=billing} 0",
            "jobs [1] {external=billing,queue=a} 4",
            "x_bytes [By] {external=billing} 1000"
        ]
    );
}

#[test]
fn a_command_whose_time_is_over_is_killed_with_all_it_has_begun() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let script = format!("sleep 600 & echo $! > {0}; echo $$ >> {0}; wait", pids.display());
    let mut slow = scrape(shell(&script));
    slow.external.timeout = Duration::from_millis(300);
    let (lines, result) = sample(&mut slow);
    assert!(lines.is_empty());
    assert!(result.unwrap_err().reason.contains("longer than 300 ms and was killed"));
    let pids: Vec<u32> = fs::read_to_string(&pids).unwrap().lines().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    let gone = poll(Duration::from_secs(5), || pids.iter().all(|pid| ProcessRef::find(*pid).is_none()).then_some(()));
    assert!(gone.is_some(), "something of it still runs");
}

#[test]
fn what_a_command_leaves_behind_is_killed_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 600 > /dev/null & echo $! > {}; echo 'x 1'", file.display());
    let (lines, result) = sample(&mut scrape(shell(&script)));
    assert_eq!((lines.len(), result), (1, Ok(())));
    let pid: u32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    assert!(poll(Duration::from_secs(5), || ProcessRef::find(pid).is_none().then_some(())).is_some());
}

#[test]
fn output_and_series_are_bounded() {
    let (lines, result) = sample(&mut scrape(shell("yes 'x 1'")));
    assert!(lines.is_empty() && result.unwrap_err().reason.contains("more than `output_bytes` (4096)"));
    let mut many = scrape(shell("for i in 1 2 3 4 5; do echo \"m{i=\\\"$i\\\"} 1\"; done"));
    let (lines, result) = sample(&mut many);
    assert_eq!(lines.len(), 3);
    let missing = result.unwrap_err();
    assert!(missing.reason.contains("2 series beyond `series_maximum` (3)") && missing.fallback.is_some(), "{missing}");
    // The same ones the next time, whatever stands before them.
    many.external.from = shell("for i in 9 3 2 1; do echo \"m{i=\\\"$i\\\"} 1\"; done");
    let (lines, _) = sample(&mut many);
    assert!(lines.len() == 3 && lines.iter().all(|line| !line.contains("i=9")), "{lines:?}");
}

#[test]
fn what_fails_says_how() {
    for (from, why) in [
        (shell("exit 3"), "exit status: 3"),
        (Origin::Command("/nowhere/program".into(), vec![]), "/nowhere/program cannot be run"),
        (shell("printf '\\377 1'"), "not UTF-8"),
        (shell("true"), "told no metric"),
        (Origin::Url("http://127.0.0.1:1/metrics".into()), "nothing of it was taken"),
    ] {
        let (lines, result) = sample(&mut scrape(from));
        let missing = result.unwrap_err();
        assert!(lines.is_empty() && missing.reason.contains(why), "{why}: {missing}");
    }
    let (lines, result) = sample(&mut scrape(shell("echo 'good 1'; echo 'bad{ 2'; echo 'fine 3'")));
    assert_eq!(lines.len(), 2);
    let missing = result.unwrap_err();
    assert!(missing.reason.contains("line 2 has a label without a name"), "{missing}");
    assert_eq!(missing.fallback.as_deref(), Some("the 2 lines that are right"));
}

/// Serves one answer to each who asks.
fn serve(answer: &'static [u8]) -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0u8; 4_096];
        let read = stream.read(&mut request).unwrap();
        assert!(request[..read].starts_with(b"GET /metrics HTTP/1.1\r\n"));
        // One that asks for too much hangs up.
        let _ = stream.write_all(answer);
        if answer.is_empty() {
            // It says nothing until the other side gives up.
            let _ = stream.read(&mut request);
        }
    });
    Origin::Url(url)
}

#[test]
fn what_an_endpoint_serves_is_told_within_its_bounds() {
    let (lines, result) =
        sample(&mut scrape(serve(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nup{a=\"b\"} 1\nx 2\n")));
    assert_eq!(result, Ok(()));
    assert_eq!(lines, ["up [1] {a=b,external=billing} 1", "x [1] {external=billing} 2"]);
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nup 1\n\r\n0\r\n\r\n";
    assert_eq!(sample(&mut scrape(serve(chunked))).0, ["up [1] {external=billing} 1"]);
    for (answer, why) in [
        (&b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"[..], "500"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", ""),
        (b"nonsense", ""),
    ] {
        let (lines, result) = sample(&mut scrape(serve(answer)));
        let missing = result.unwrap_err();
        assert!(lines.is_empty() && missing.reason.contains(why), "{why}: {missing}");
    }
    let mut long = scrape(serve(b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\naaaaaaaaa 1\nbbbbbb 2\n"));
    long.external.output_bytes = 10;
    assert!(sample(&mut long).1.unwrap_err().reason.contains("longer than `output_bytes` (10)"));
    let mut silent = scrape(serve(b""));
    silent.external.timeout = Duration::from_millis(200);
    assert!(sample(&mut silent).1.unwrap_err().reason.contains("timeout"));
}
