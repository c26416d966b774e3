//! Spot prices in USD an hour: EC2's `DescribeSpotPriceHistory` as its command line writes it, and Azure's retail prices.
//!
//! <https://docs.aws.amazon.com/cli/latest/reference/ec2/describe-spot-price-history.html>,
//! <https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices>

use super::{Error, date::rfc3339, format};
use crate::time::Time;
use serde::Deserialize;

/// Nobody rents a machine for more.
const PRICE_MAXIMUM: f64 = 100_000.0;

/// The prices of `describe-spot-price-history`, oldest first; of the same time, the lowest (the cheapest zone).
pub fn spot_price_history(body: &str) -> Result<Vec<(Time, f64)>, Error> {
    const FORMAT: &str = "describe-spot-price-history";
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document {
        spot_price_history: Vec<Price>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Price {
        spot_price: String,
        timestamp: String,
    }
    let Document { spot_price_history } = serde_json::from_str(body).map_err(|error| format(FORMAT, error))?;
    let mut prices = vec![];
    for Price { spot_price, timestamp } in spot_price_history {
        let at = rfc3339(&timestamp).ok_or_else(|| format(FORMAT, format_args!("`{timestamp}` is no time")))?;
        prices.push((at, checked(FORMAT, spot_price.parse().unwrap_or(f64::NAN))?));
    }
    prices.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    prices.dedup_by_key(|price| price.0);
    Ok(prices)
}

/// The lowest spot price of an hour in a page of retail prices. None: there is no spot price in it.
pub fn azure_retail_prices(body: &str) -> Result<Option<f64>, Error> {
    const FORMAT: &str = "retail prices";
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        currency_code: String,
        retail_price: f64,
        sku_name: String,
        unit_of_measure: String,
        #[serde(default)]
        product_name: String,
    }
    let Document { items } = serde_json::from_str(body).map_err(|error| format(FORMAT, error))?;
    let mut lowest: Option<f64> = None;
    for item in items {
        let wanted = item.currency_code == "USD"
            && item.unit_of_measure == "1 Hour"
            && item.sku_name.ends_with("Spot")
            && !item.product_name.contains("Windows");
        if wanted {
            let price = checked(FORMAT, item.retail_price)?;
            lowest = Some(lowest.map_or(price, |lowest| lowest.min(price)));
        }
    }
    Ok(lowest)
}

fn checked(of: &'static str, price: f64) -> Result<f64, Error> {
    if (0.0..=PRICE_MAXIMUM).contains(&price) {
        Ok(price)
    } else {
        Err(format(of, format_args!("a price of {price} is not between 0 and {PRICE_MAXIMUM} USD an hour")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_answers() {
        let body = r#"{"SpotPriceHistory": [
            {"Timestamp": "2014-01-06T07:10:55.000Z", "ProductDescription": "Linux/UNIX", "InstanceType": "m1.xlarge",
             "SpotPrice": "0.087000", "AvailabilityZone": "us-west-1b"},
            {"Timestamp": "2014-01-06T07:10:55.000Z", "ProductDescription": "Linux/UNIX", "InstanceType": "m1.xlarge",
             "SpotPrice": "0.077000", "AvailabilityZone": "us-west-1c"},
            {"Timestamp": "2014-01-06T05:42:36.000Z", "ProductDescription": "Linux/UNIX", "InstanceType": "m1.xlarge",
             "SpotPrice": "0.0870", "AvailabilityZone": "us-west-1a"}]}"#;
        assert_eq!(
            spot_price_history(body).unwrap(),
            [(Time(1_388_986_956_000), 0.087), (Time(1_388_992_255_000), 0.077)]
        );
        assert!(spot_price_history(&body.replace("0.0870\"", "free\"")).is_err());
        let item = |sku: &str, price: f64| {
            format!(
                r#"{{"currencyCode": "USD", "tierMinimumUnits": 0.0, "retailPrice": {price}, "unitPrice": {price},
                "armRegionName": "westus2", "productName": "Virtual Machines NCv3 Series", "skuName": "{sku}",
                "serviceName": "Virtual Machines", "unitOfMeasure": "1 Hour", "type": "Consumption"}}"#
            )
        };
        let page = |items: &[String]| {
            format!(r#"{{"BillingCurrency": "USD", "Items": [{}], "NextPageLink": null, "Count": 1}}"#, items.join(","))
        };
        let prices = page(&[item("NC6s v3", 3.06), item("NC6s v3 Spot", 0.61), item("NC6s v3 Spot", 0.59)]);
        assert_eq!(azure_retail_prices(&prices), Ok(Some(0.59)));
        assert_eq!(azure_retail_prices(&page(&[item("NC6s v3", 3.06)])), Ok(None));
        assert!(azure_retail_prices("{}").is_err());
        assert!(azure_retail_prices(&page(&[item("NC6s v3 Spot", -1.0)])).is_err());
    }
}
