//! What does a trained model say of this node? Gradient-boosted trees of XGBoost and LightGBM, and isolation forests of
//! scikit-learn, as files beside the component: a new model is new assets, not a new build.
//!
//! The model is read and checked once, when the component is configured; a file is taken for hostile until then. This
//! file is the door; [`rules`] is the way from assets to an answer.

#[cfg(test)]
mod agreement;
mod features;
mod forest;
mod isolation;
mod lightgbm;
mod rules;
#[cfg(test)]
mod tests;
mod xgboost;

use anomaly::{
    contract::aether::plugin::{
        assets,
        types::{Description, Observation},
    },
    plugin, scoring,
};
use std::sync::OnceLock;

static MODEL: OnceLock<rules::Model> = OnceLock::new();

struct Component;

impl plugin::Guest for Component {
    fn describe() -> Description {
        Description {
            name: "tree-ensemble".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Rates a node by a model of XGBoost, LightGBM or scikit-learn that lies beside it.".into(),
            inputs: features::inputs(),
            config_schema: include_str!("schema.json").into(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let model = rules::Model::read(&config, assets::read)?;
        MODEL.set(model).map_err(|_| "the component was configured already".to_owned())
    }
}

impl scoring::Guest for Component {
    fn score(observation: Observation) -> Result<scoring::Assessment, String> {
        let model = MODEL.get().ok_or("the component was not configured, so it has no model")?;
        Ok(model.assess(&observation))
    }
}

anomaly::contract::export!(Component with_types_in anomaly::contract);
