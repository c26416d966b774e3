//! `aether gates`: whether what the gates have people approve is looked at, or waved through.

use super::{client::Client, say, show};
use aether_core::incident::scrutiny::Scrutiny;

pub(super) async fn run(client: &Client, json: bool) -> anyhow::Result<()> {
    let all: Vec<Scrutiny> = client.get("gates").await?;
    if json {
        return show::json(&all);
    }
    if all.is_empty() {
        say("No gate has asked for an approval yet.");
        return Ok(());
    }
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            [
                one.gate.clone(),
                one.asked.to_string(),
                one.approved.to_string(),
                one.denied.to_string(),
                one.expired.to_string(),
                one.waiting.to_string(),
                one.median_ms.map_or_else(|| "-".into(), show::duration),
                one.wordless.to_string(),
                one.rubber_stamp.map_or_else(|| "-".into(), |share| format!("{:.0} %", share * 100.0)),
            ]
        })
        .collect();
    show::table(
        ["GATE", "ASKED", "APPROVED", "DENIED", "EXPIRED", "WAITING", "MEDIAN", "NO COMMENT", "RUBBER STAMP"],
        &rows,
    );
    say("RUBBER STAMP: the share of the answered that was approved within ten seconds of the question.");
    Ok(())
}
