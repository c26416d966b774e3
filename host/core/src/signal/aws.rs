//! Amazon EC2: spot instance interruption notices and rebalance recommendations of the instance metadata service.
//!
//! `GET /latest/meta-data/spot/instance-action` and `/latest/meta-data/events/recommendations/rebalance`; both answer 404
//! while there is nothing to say.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html>

use super::{Error, Kind, Notice, date::rfc3339, format, said};
use serde::Deserialize;

/// `spot/instance-action`.
pub fn instance_action(body: &str) -> Result<Notice, Error> {
    const FORMAT: &str = "spot/instance-action";
    #[derive(Deserialize)]
    struct Document {
        action: String,
        time: String,
    }
    let Document { action, time } = serde_json::from_str(body).map_err(|error| format(FORMAT, error))?;
    if !["terminate", "stop", "hibernate"].contains(&action.as_str()) {
        return Err(format(FORMAT, format_args!("the action `{action}` is not known")));
    }
    let deadline = rfc3339(&time).ok_or_else(|| format(FORMAT, format_args!("`{time}` is no time")))?;
    let said = said(&[("source", "aws.imds"), ("action", &action)]);
    Ok(Notice { kind: Kind::Termination { deadline: Some(deadline) }, at: None, said })
}

/// `events/recommendations/rebalance`.
pub fn rebalance(body: &str) -> Result<Notice, Error> {
    const FORMAT: &str = "events/recommendations/rebalance";
    #[derive(Deserialize)]
    struct Document {
        #[serde(rename = "noticeTime")]
        notice_time: String,
    }
    let Document { notice_time } = serde_json::from_str(body).map_err(|error| format(FORMAT, error))?;
    let at = rfc3339(&notice_time).ok_or_else(|| format(FORMAT, format_args!("`{notice_time}` is no time")))?;
    Ok(Notice { kind: Kind::Rebalance, at: Some(at), said: said(&[("source", "aws.imds")]) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    #[test]
    fn the_documented_answers() {
        let found = instance_action(r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#).unwrap();
        assert_eq!(found.kind, Kind::Termination { deadline: Some(Time(1_505_722_920_000)) });
        assert_eq!((found.said["source"].as_str(), found.said["action"].as_str()), ("aws.imds", "terminate"));
        let found = rebalance(r#"{"noticeTime": "2020-10-27T08:22:00Z"}"#).unwrap();
        assert_eq!((found.kind, found.at), (Kind::Rebalance, Some(Time(1_603_786_920_000))));
        for bad in [
            "",
            "<html>",
            "{}",
            r#"{"action": "dance", "time": "2017-09-18T08:22:00Z"}"#,
            r#"{"action": "stop", "time": "x"}"#,
        ] {
            assert!(instance_action(bad).is_err() && rebalance(bad).is_err(), "{bad}");
        }
    }
}
