//! The clouds' metadata services as far as they are asked: a small server that insists on what the real ones insist on.

use super::{providers::Provider, *};
use aether_core::{signal::Kind, time::Time};
use std::sync::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};

const WITHIN: Duration = Duration::from_secs(20);

/// What the service says.
#[derive(Clone, Debug, Default)]
struct World {
    action: Option<&'static str>,
    rebalance: Option<&'static str>,
    preempted: bool,
    maintenance: &'static str,
    events: String,
    /// Tokens that were made; each new one voids those before.
    tokens: u32,
    broken: bool,
}

struct Service {
    address: SocketAddr,
    world: Arc<watch::Sender<World>>,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Service {
    async fn start(world: World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (world, asked) = (Arc::new(watch::Sender::new(world)), Arc::new(Mutex::new(vec![])));
        let mut serving = JoinSet::new();
        let (told, seen) = (world.clone(), asked.clone());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (world, seen) = (told.clone(), seen.clone());
                connections.spawn(async move {
                    let mut request = vec![];
                    while !request.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        request.push(byte);
                    }
                    let request = String::from_utf8(request).unwrap().to_lowercase();
                    seen.lock().unwrap().push(request.lines().next().unwrap().to_owned());
                    let (status, body) = answer(&request, &world).await;
                    let etag = if world.borrow().preempted { "e2" } else { "e1" };
                    let text = format!(
                        "HTTP/1.1 {status} Said\r\netag: {etag}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    // The agent may have lost its patience.
                    let _ = stream.write_all(text.as_bytes()).await;
                });
            }
        });
        Self { address, world, asked, _serving: serving }
    }

    fn provider(&self, cloud: Cloud) -> Provider {
        Provider::new(cloud, self.address, WITHIN)
    }
}

async fn answer(request: &str, world: &watch::Sender<World>) -> (u16, String) {
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let has = |header: &str| request.lines().any(|line| line == header);
    if world.borrow().broken {
        return (503, "out of order".into());
    }
    if request.starts_with("put /latest/api/token ") {
        if !has("x-aws-ec2-metadata-token-ttl-seconds: 21600") {
            return (400, String::new());
        }
        let mut token = 0;
        world.send_modify(|world| {
            world.tokens += 1;
            token = world.tokens;
        });
        return (200, format!("token-{token}"));
    }
    let found = |document: Option<&str>| document.map_or((404, "<html>".into()), |text| (200, text.to_owned()));
    let now = world.borrow().clone();
    if path.starts_with("/latest/") {
        if !has(&format!("x-aws-ec2-metadata-token: token-{}", now.tokens)) {
            return (401, String::new());
        }
        return match path.as_str() {
            "/latest/meta-data/spot/instance-action" => found(now.action),
            "/latest/meta-data/events/recommendations/rebalance" => found(now.rebalance),
            _ => (404, String::new()),
        };
    }
    if path.starts_with("/computemetadata/") {
        if !has("metadata-flavor: google") {
            return (403, String::new());
        }
        if path.ends_with("/instance/maintenance-event") {
            return (200, now.maintenance.into());
        }
        if path.contains("wait_for_change=true") && path.contains("last_etag=e1") {
            world.subscribe().wait_for(|world| world.preempted).await.unwrap();
        }
        return (200, if world.borrow().preempted { "TRUE" } else { "FALSE" }.into());
    }
    if !has("metadata: true") {
        return (400, String::new());
    }
    match path.split('?').next().unwrap() {
        "/metadata/instance/compute/name" => (200, "vm-7".into()),
        "/metadata/scheduledevents" => (200, now.events),
        _ => (404, String::new()),
    }
}

fn kinds(asked: Asked) -> Vec<Kind> {
    asked.unwrap().into_iter().map(|notice| notice.kind).collect()
}

#[tokio::test]
async fn aws_is_asked_with_a_token_that_is_made_anew_when_it_is_refused() {
    let service = Service::start(World::default()).await;
    let mut aws = service.provider(Cloud::Aws);
    assert!(kinds(aws.ask().await).is_empty());
    service.world.send_modify(|world| {
        // The machine was moved: its tokens are void.
        world.tokens += 1;
        world.rebalance = Some(r#"{"noticeTime": "2020-10-27T08:22:00Z"}"#);
        world.action = Some(r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#);
    });
    let deadline = Some(Time(1_505_722_920_000));
    assert_eq!(kinds(aws.ask().await), [Kind::Termination { deadline }, Kind::Rebalance]);
    let tokens = service.asked.lock().unwrap().iter().filter(|line| line.starts_with("put")).count();
    assert_eq!(tokens, 2, "one for the first request, one after the refusal");
    service.world.send_modify(|world| world.broken = true);
    let error = aws.ask().await.unwrap_err().to_string();
    assert!(error.contains("503"), "{error}");
}

#[tokio::test]
async fn google_tells_of_a_preemption_in_the_answer_that_it_holds() {
    let service = Service::start(World { maintenance: "NONE", ..World::default() }).await;
    let mut gcp = service.provider(Cloud::Gcp);
    assert!(kinds(gcp.ask().await).is_empty());
    let (held, ()) = tokio::join!(gcp.ask(), async {
        // Once the question that waits has come in.
        loop {
            if service.asked.lock().unwrap().iter().any(|line| line.contains("last_etag=e1")) {
                break;
            }
            tokio::task::yield_now().await;
        }
        service.world.send_modify(|world| world.preempted = true);
    });
    assert_eq!(kinds(held), [Kind::Termination { deadline: None }]);
    assert_eq!(gcp.grace_ms(), 30_000);
    service.world.send_modify(|world| world.maintenance = "TERMINATE_ON_HOST_MAINTENANCE");
    assert_eq!(kinds(gcp.ask().await), [Kind::Rebalance, Kind::Termination { deadline: None }]);
    service.world.send_modify(|world| world.maintenance = "<html>");
    assert!(gcp.ask().await.is_err());
}

#[tokio::test]
async fn azure_is_heard_on_this_machine_alone() {
    let event = |machine: &str| {
        format!(
            r#"{{"DocumentIncarnation": 1, "Events": [{{"EventId": "1", "EventStatus": "Scheduled", "EventType": "Preempt",
            "ResourceType": "VirtualMachine", "Resources": ["{machine}"], "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT"}}]}}"#
        )
    };
    let service = Service::start(World { events: event("vm-8"), ..World::default() }).await;
    let mut azure = service.provider(Cloud::Azure);
    assert!(kinds(azure.ask().await).is_empty());
    service.world.send_modify(|world| world.events = event("VM-7"));
    let deadline = Some(Time(1_474_309_787_000));
    assert_eq!(kinds(azure.ask().await), [Kind::Termination { deadline }]);
}

#[tokio::test]
async fn a_service_that_hangs_or_is_not_there_is_an_error_and_no_notice() {
    let service = Service::start(World::default()).await;
    let mut gcp = Provider::new(Cloud::Gcp, service.address, Duration::from_millis(1));
    assert!(gcp.ask().await.is_err());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut silent = Provider::new(Cloud::Azure, address, Duration::from_millis(50));
    assert!(silent.ask().await.unwrap_err().to_string().contains("within 50 ms"));
    drop(listener);
    let mut absent = Provider::new(Cloud::Aws, address, WITHIN);
    assert!(absent.ask().await.unwrap_err().to_string().contains("cannot be reached"));
}
