//! Carbon intensity of a grid: the answers of Electricity Maps (v3) and WattTime (v3), as grams of CO2 equivalent per kWh.
//!
//! <https://portal.electricitymaps.com/docs/api>, <https://docs.watttime.org>

use super::{Error, date::rfc3339, format, said};
use crate::time::Time;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A pound per MWh in grams per kWh.
const POUNDS_PER_MWH: f64 = 0.453_592_37;
/// No grid emits more; a larger number is in another unit.
const GRAMS_MAXIMUM: f64 = 5_000.0;
/// Points of one forecast: three days of five minutes.
const POINTS_MAXIMUM: usize = 900;

/// What a provider says of a grid, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Carbon {
    /// The zone or region, in the provider's word.
    pub zone: String,
    /// `g/kW.h`, or `%` where the provider gives a percentile alone.
    pub unit: &'static str,
    pub points: Vec<(Time, f64)>,
    /// Whence it comes and of which kind it is.
    pub said: BTreeMap<String, String>,
}

/// `GET /v3/carbon-intensity/latest?zone=..`.
pub fn electricity_maps(body: &str) -> Result<Carbon, Error> {
    const FORMAT: &str = "carbon-intensity/latest";
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        zone: String,
        carbon_intensity: f64,
        datetime: String,
        #[serde(default)]
        emission_factor_type: String,
        #[serde(default)]
        is_estimated: Option<bool>,
        #[serde(default)]
        estimation_method: Option<String>,
    }
    let told: Document = serde_json::from_str(body).map_err(|error| format(FORMAT, error))?;
    let at = rfc3339(&told.datetime).ok_or_else(|| format(FORMAT, format_args!("`{}` is no time", told.datetime)))?;
    check(FORMAT, told.carbon_intensity, GRAMS_MAXIMUM)?;
    let estimated = told.is_estimated.map(|estimated| estimated.to_string()).unwrap_or_default();
    let said = said(&[
        ("source", "electricity-maps"),
        ("factor", &told.emission_factor_type),
        ("estimated", &estimated),
        ("method", &told.estimation_method.unwrap_or_default()),
    ]);
    Ok(Carbon { zone: told.zone, unit: "g/kW.h", points: vec![(at, told.carbon_intensity)], said })
}

/// `GET /v3/signal-index?region=..&signal_type=co2_moer` and `GET /v3/forecast?region=..`: one shape.
pub fn watttime(body: &str) -> Result<Carbon, Error> {
    const FORMAT: &str = "WattTime's data";
    #[derive(Deserialize)]
    struct Document {
        data: Vec<Point>,
        meta: Meta,
    }
    #[derive(Deserialize)]
    struct Point {
        point_time: String,
        value: f64,
    }
    #[derive(Deserialize)]
    struct Meta {
        region: String,
        signal_type: String,
        units: String,
        #[serde(default)]
        model: Option<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        #[serde(default)]
        date: String,
    }
    let Document { data, meta } = serde_json::from_str(body).map_err(|error| format(FORMAT, error))?;
    let (unit, factor, maximum) = match meta.units.as_str() {
        "percentile" => ("%", 1.0, 100.0),
        "lbs_co2_per_mwh" => ("g/kW.h", POUNDS_PER_MWH, GRAMS_MAXIMUM),
        other => return Err(format(FORMAT, format_args!("the unit `{}` is not known", super::short(other)))),
    };
    if data.len() > POINTS_MAXIMUM {
        return Err(format(FORMAT, format_args!("more than {POINTS_MAXIMUM} points")));
    }
    let mut points = Vec::with_capacity(data.len());
    for Point { point_time, value } in data {
        let at = rfc3339(&point_time).ok_or_else(|| format(FORMAT, format_args!("`{point_time}` is no time")))?;
        check(FORMAT, value * factor, maximum)?;
        if points.last().is_some_and(|(last, _)| *last >= at) {
            return Err(format(FORMAT, "the points are not in order of time"));
        }
        points.push((at, value * factor));
    }
    let said = said(&[
        ("source", "watttime"),
        ("signal", &meta.signal_type),
        ("model", &meta.model.map(|model| model.date).unwrap_or_default()),
    ]);
    Ok(Carbon { zone: meta.region, unit, points, said })
}

fn check(of: &'static str, value: f64, maximum: f64) -> Result<(), Error> {
    if (0.0..=maximum).contains(&value) {
        Ok(())
    } else {
        Err(format(of, format_args!("{value} is not between 0 and {maximum}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn electricity_maps_as_documented() {
        let body = r#"{"zone": "DE", "carbonIntensity": 302, "datetime": "2018-04-25T18:07:00.350Z",
            "updatedAt": "2018-04-25T18:07:01.000Z", "createdAt": "2018-04-22T18:07:01.000Z",
            "emissionFactorType": "lifecycle", "isEstimated": true, "estimationMethod": "TIME_SLICER_AVERAGE"}"#;
        let found = electricity_maps(body).unwrap();
        assert_eq!((found.zone.as_str(), found.unit), ("DE", "g/kW.h"));
        assert_eq!(found.points, [(Time(1_524_679_620_350), 302.0)]);
        assert_eq!((found.said["estimated"].as_str(), found.said["factor"].as_str()), ("true", "lifecycle"));
        for bad in ["", r#"{"error": "Invalid auth-token"}"#, &body.replace("302", "-1"), &body.replace("302", "null")]
        {
            assert!(electricity_maps(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn watttime_as_documented() {
        let body = r#"{"data": [{"point_time": "2022-07-15T00:00:00+00:00", "value": 870.0},
                {"point_time": "2022-07-15T00:05:00+00:00", "value": 880.0}],
            "meta": {"data_point_period_seconds": 300, "region": "CAISO_NORTH", "signal_type": "co2_moer",
                "units": "lbs_co2_per_mwh", "warnings": [], "model": {"date": "2023-03-01", "type": "binned_regression"},
                "generated_at_period_seconds": 300, "generated_at": "2022-07-15T00:00:00+00:00"}}"#;
        let found = watttime(body).unwrap();
        assert_eq!((found.zone.as_str(), found.unit, found.points.len()), ("CAISO_NORTH", "g/kW.h", 2));
        assert!((found.points[0].1 - 394.625).abs() < 0.001);
        assert_eq!((found.said["signal"].as_str(), found.said["model"].as_str()), ("co2_moer", "2023-03-01"));
        let index = r#"{"data": [{"point_time": "2022-07-15T00:00:00+00:00", "value": 45.0}],
            "meta": {"region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "percentile", "warnings": []}}"#;
        assert_eq!(watttime(index).unwrap().unit, "%");
        for bad in [
            String::new(),
            index.replace("percentile", "stones"),
            index.replace("45.0", "450"),
            body.replace("00:05", "00:00"),
        ] {
            assert!(watttime(&bad).is_err(), "{bad}");
        }
    }
}
