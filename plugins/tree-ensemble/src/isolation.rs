//! Isolation forests of scikit-learn, as `sdk/models/export.py` writes them; the format is in `docs/plugins.md`.
//!
//! scikit-learn compares a value in single precision with a threshold in double precision. The exporter writes the
//! greatest single-precision number that is not above the threshold, which decides the same of every such value and is
//! read back exactly.

use crate::forest::{Child, Forest, Link, Missing, Precision, Split};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u32,
    features: usize,
    #[serde(default)]
    feature_names: Vec<String>,
    /// The number of trees times the mean path length of a sample's size.
    scale: f64,
    trees: Vec<Tree>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    feature: Vec<u32>,
    threshold: Vec<f32>,
    default_left: Vec<u8>,
    /// Of a split or, below zero, the complement of a leaf's index.
    left: Vec<i32>,
    right: Vec<i32>,
    /// Path length that each leaf stands for.
    leaf: Vec<f64>,
}

pub(crate) const FORMAT: &str = "aether-isolation-forest";

pub(crate) fn read(json: &[u8]) -> Result<Forest, String> {
    let document: Document = serde_json::from_slice(json).map_err(|error| format!("no isolation forest: {error}"))?;
    if document.format != FORMAT || document.version != 1 {
        let (format, version) = (document.format, document.version);
        return Err(format!("the format `{format:.60}` {version} is not `{FORMAT}` 1"));
    }
    if !(document.scale.is_finite() && document.scale > 0.0) {
        return Err(format!("`scale` is {}; it is above zero", document.scale));
    }
    let mut forest = Forest::new(document.features, document.feature_names, Precision::SingleLessOrEqual)?;
    forest.link = Link::Isolation { scale: document.scale };
    for (number, tree) in document.trees.iter().enumerate() {
        let nodes = tree.feature.len();
        let lengths = [tree.threshold.len(), tree.default_left.len(), tree.left.len(), tree.right.len()];
        if lengths.iter().any(|length| *length != nodes) {
            return Err(format!("tree {number}: its lists are not of one length ({nodes}, {lengths:?})"));
        }
        let child = |of: i32| {
            let index = usize::try_from(if of < 0 { !of } else { of }).unwrap_or(usize::MAX);
            if of < 0 { Child::Leaf(index) } else { Child::Split(index) }
        };
        let splits: Vec<(Split, Child, Child)> = (0..nodes)
            .map(|node| {
                let split = Split {
                    feature: u16::try_from(tree.feature[node]).unwrap_or(u16::MAX),
                    default_left: tree.default_left[node] != 0,
                    missing: Missing::Default,
                    threshold: f64::from(tree.threshold[node]),
                };
                (split, child(tree.left[node]), child(tree.right[node]))
            })
            .collect();
        forest.add(&splits, &tree.leaf).map_err(|wrong| format!("tree {number}: {wrong}"))?;
    }
    if forest.trees() == 0 {
        return Err("the model has no trees".into());
    }
    Ok(forest)
}
