//! Feeds of signals: services that answer as documented, asked over HTTP with their secrets, become series with whence
//! they come; one that answers otherwise becomes none.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use aether_core::{
    subject::{SubjectKind, SubjectRef},
    time::Time,
};
use aether_host::{
    clock,
    signals::{self, Settings},
};
use aether_recorder::Recorder;
use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::IntoResponse as _,
    routing::get,
};
use std::time::Duration;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

fn stamp(at: Time) -> String {
    // Of a day in 2026, by hand: the tests of the parser have the rest.
    let (days, of_day) = (at.0.div_euclid(86_400_000), at.0.rem_euclid(86_400_000) / 1_000);
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_answer_as_documented_become_series_with_whence_they_come() {
    let folder = tempfile::tempdir().unwrap();
    let segments = aether_recorder::local_store(&folder.path().join("telemetry")).unwrap();
    let recorder = Recorder::open(aether_recorder::Settings::default(), segments, clock::now()).await.unwrap();
    let now = clock::now();
    let measured = Time((now.0 - 600_000) / 1_000 * 1_000);
    let maps = format!(
        r#"{{"zone": "DE", "carbonIntensity": 302, "datetime": "{}", "emissionFactorType": "lifecycle", "isEstimated": false}}"#,
        stamp(measured)
    );
    let point = |hours: u64, value: u32| {
        format!(r#"{{"point_time": "{}", "value": {value}}}"#, stamp(now.plus_ms(hours * 3_600_000 + 60_000)))
    };
    let forecast = format!(
        r#"{{"data": [{}, {}], "meta": {{"region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh"}}}}"#,
        point(1, 1_000),
        point(6, 500)
    );
    let prices = format!(r#"{{"SpotPriceHistory": [{{"SpotPrice": "0.31", "Timestamp": "{}"}}]}}"#, stamp(measured));
    let has = |headers: &HeaderMap, name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    let denied = || StatusCode::UNAUTHORIZED.into_response();
    let router = Router::new()
        .route(
            "/v3/carbon-intensity/latest",
            get(move |headers: HeaderMap| async move {
                if has(&headers, "auth-token", "s3cret") { maps.into_response() } else { denied() }
            }),
        )
        .route(
            "/login",
            get(move |headers: HeaderMap| async move {
                // ann:s3cret
                let known = has(&headers, "authorization", "Basic YW5uOnMzY3JldA==");
                if known { r#"{"token": "a-session"}"#.into_response() } else { denied() }
            }),
        )
        .route(
            "/v3/forecast",
            get(move |headers: HeaderMap| async move {
                if has(&headers, "authorization", "Bearer a-session") { forecast.into_response() } else { denied() }
            }),
        )
        .route("/prices", get(move || async move { prices }))
        .route("/strange", get(|| async { "<html>sign in</html>" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let secret = secret.display();
    let text = format!(
        r#"
        [[feeds]]
        name = "grid"
        format = "electricity_maps"
        url = "{url}/v3/carbon-intensity/latest?zone=DE"
        header_files = {{ auth-token = "{secret}" }}
        nodes = ["node-a"]
        interval_ms = 1000
        [[feeds]]
        name = "ahead"
        format = "watttime_forecast"
        url = "{url}/v3/forecast?region=CAISO_NORTH&signal_type=co2_moer"
        login = {{ url = "{url}/login", user = "ann", password_file = "{secret}" }}
        [[feeds]]
        name = "spot"
        format = "aws_spot_price_history"
        url = "{url}/prices"
        nodes = ["node-a", "node-b"]
        [[feeds]]
        name = "strange"
        format = "watttime"
        url = "{url}/strange"
        "#
    );
    let settings: Settings = toml::from_str(&text).unwrap();
    settings.check().unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    signals::start(&settings, &recorder, &tasks, &stop).unwrap();
    let grid = |zone: &str| SubjectRef { kind: SubjectKind::Participant, id: format!("grid/{zone}") };
    let all = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            let carbon = recorder.latest(&grid("DE"), "aether.carbon.intensity");
            let foretold = recorder.latest(&grid("CAISO_NORTH"), "aether.carbon.forecast");
            let price = recorder.latest(&SubjectRef::node("node-b"), "aether.market.price");
            if !carbon.is_empty() && foretold.len() == 2 && !price.is_empty() {
                return (carbon, foretold, price);
            }
        }
    };
    let (carbon, foretold, price) = timeout(Duration::from_secs(60), all).await.expect("all feeds in time");
    let (key, sample) = &carbon[0];
    assert_eq!((sample.at, sample.value, key.unit.as_str()), (measured, 302.0, "g/kW.h"));
    let of = |name: &str| key.attributes[name].as_str();
    assert_eq!((of("source"), of("zone"), of("feed"), of("estimated")), ("electricity-maps", "DE", "grid", "false"));
    assert_eq!(recorder.latest(&SubjectRef::node("node-a"), "aether.carbon.intensity").len(), 1);
    let ahead: Vec<_> =
        foretold.iter().map(|(key, sample)| (key.attributes["ahead"].as_str(), sample.value.round())).collect();
    assert_eq!(ahead, [("1h", 454.0), ("6h", 227.0)]);
    assert_eq!((price[0].1.value, price[0].0.attributes["source"].as_str()), (0.31, "aws.spot-price-history"));
    assert_eq!(recorder.series(None).len(), 2 + 2 + 2, "the strange one tells nothing");
    stop.cancel();
    tasks.close();
    timeout(Duration::from_secs(60), tasks.wait()).await.expect("asking ends when the host does");
}

#[test]
fn what_cannot_work_is_named() {
    let check = |text: &str| {
        let text = format!("[[feeds]]\nname = \"f\"\nformat = \"electricity_maps\"\n{text}");
        toml::from_str::<Settings>(&text).unwrap().check().map_err(|wrong| wrong.to_string())
    };
    assert_eq!(check("url = \"http://127.0.0.1:1\""), Ok(()));
    for (text, part) in [
        ("url = \"carbon\"", "no http"),
        ("url = \"http://example.org\"\nheader_files = { auth-token = \"/x\" }", "plain text"),
        ("url = \"https://example.org\"\nnodes = [\"A B\"]", "no name of a node"),
        ("url = \"https://example.org\"\ninterval_ms = 1", "interval_ms is 1"),
    ] {
        let wrong = check(text).unwrap_err();
        assert!(wrong.contains(part), "{wrong}");
    }
}
