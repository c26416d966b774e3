//! Azure: Scheduled Events of the instance metadata service.
//!
//! `GET /metadata/scheduledevents?api-version=2020-07-01` tells of all machines of an availability or scale set; each event
//! names the ones that it is about.
//! <https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events>

use super::{Error, Kind, Notice, date::http_date, format, said};
use serde::Deserialize;

/// The notices that are about this machine.
pub fn scheduled_events(body: &str, machine: &str) -> Result<Vec<Notice>, Error> {
    const FORMAT: &str = "scheduledevents";
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document {
        events: Vec<Event>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Event {
        event_id: String,
        event_type: String,
        resources: Vec<String>,
        event_status: String,
        #[serde(default)]
        not_before: String,
        #[serde(default)]
        description: String,
        #[serde(default)]
        event_source: String,
    }
    let Document { events } = serde_json::from_str(body).map_err(|error| format(FORMAT, error))?;
    let mut notices = vec![];
    for event in events {
        if !event.resources.iter().any(|resource| resource.eq_ignore_ascii_case(machine)) {
            continue;
        }
        // A freeze is a pause of some seconds; a type that is not known may be worse.
        let kind = match event.event_type.as_str() {
            "Freeze" => continue,
            "Preempt" | "Terminate" | "Reboot" | "Redeploy" => {
                // Empty once it has begun.
                let deadline = match event.not_before.as_str() {
                    "" => None,
                    text => {
                        let deadline = http_date(text);
                        Some(deadline.ok_or_else(|| format(FORMAT, format_args!("`{text}` is no time")))?)
                    }
                };
                Kind::Termination { deadline }
            }
            _ => Kind::Rebalance,
        };
        let said = said(&[
            ("source", "azure.scheduled-events"),
            ("action", &event.event_type),
            ("status", &event.event_status),
            ("event", &event.event_id),
            ("description", &event.description),
            ("initiator", &event.event_source),
        ]);
        notices.push(Notice { kind, at: None, said });
    }
    Ok(notices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    #[test]
    fn the_documented_answers() {
        let answer = |kind: &str, status: &str, not_before: &str| {
            format!(
                r#"{{"DocumentIncarnation": 1, "Events": [{{
                    "EventId": "C7061BAC-AFDC-4513-B24B-AA5F13A16123", "EventStatus": "{status}", "EventType": "{kind}",
                    "ResourceType": "VirtualMachine", "Resources": ["WestNO_0", "WestNO_1"],
                    "NotBefore": "{not_before}", "Description": "Host server is undergoing maintenance.",
                    "EventSource": "Platform", "DurationInSeconds": -1 }}]}}"#
            )
        };
        let found =
            scheduled_events(&answer("Preempt", "Scheduled", "Mon, 19 Sep 2016 18:29:47 GMT"), "westno_0").unwrap();
        assert_eq!(found[0].kind, Kind::Termination { deadline: Some(Time(1_474_309_787_000)) });
        assert_eq!(found[0].said["action"], "Preempt");
        assert_eq!(found[0].said["initiator"], "Platform");
        let found = scheduled_events(&answer("Redeploy", "Started", ""), "WestNO_1").unwrap();
        assert_eq!(found[0].kind, Kind::Termination { deadline: None });
        assert!(
            scheduled_events(&answer("Preempt", "Scheduled", ""), "WestNO_2").unwrap().is_empty(),
            "another machine's"
        );
        assert!(scheduled_events(&answer("Freeze", "Scheduled", ""), "WestNO_0").unwrap().is_empty());
        assert_eq!(scheduled_events(&answer("Melt", "Scheduled", ""), "WestNO_0").unwrap()[0].kind, Kind::Rebalance);
        assert!(scheduled_events(r#"{"DocumentIncarnation": 1, "Events": []}"#, "x").unwrap().is_empty());
        for bad in ["", "{}", &answer("Preempt", "Scheduled", "soon")] {
            assert!(scheduled_events(bad, "WestNO_0").is_err(), "{bad}");
        }
    }
}
