//! Models of XGBoost, as `Booster.save_model("model.json")` writes them
//! (<https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html>).

use crate::forest::{Child, Forest, Link, Missing, Precision, Split};
use serde::Deserialize;

#[derive(Deserialize)]
struct Document {
    learner: Learner,
}

#[derive(Deserialize)]
struct Learner {
    #[serde(default)]
    feature_names: Vec<String>,
    gradient_booster: Booster,
    learner_model_param: Parameters,
    objective: Objective,
}

#[derive(Deserialize)]
struct Parameters {
    /// `"5E-1"`, or since version 3.1 `"[5E-1]"`.
    base_score: String,
    num_class: String,
    num_feature: String,
    #[serde(default)]
    num_target: Option<String>,
}

#[derive(Deserialize)]
struct Objective {
    name: String,
}

#[derive(Deserialize)]
struct Booster {
    name: String,
    #[serde(default)]
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    trees: Vec<Tree>,
}

#[derive(Deserialize)]
struct Tree {
    left_children: Vec<i32>,
    right_children: Vec<i32>,
    split_indices: Vec<u32>,
    /// The value, where there is no child.
    split_conditions: Vec<f32>,
    default_left: Vec<Flag>,
    #[serde(default)]
    split_type: Vec<u8>,
    tree_param: TreeParameters,
}

#[derive(Deserialize)]
struct TreeParameters {
    #[serde(default)]
    size_leaf_vector: Option<String>,
}

/// 0 and 1, or in older versions `true` and `false`.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Flag {
    Word(bool),
    Number(u8),
}

impl Flag {
    fn is_set(self) -> bool {
        match self {
            Flag::Word(word) => word,
            Flag::Number(number) => number != 0,
        }
    }
}

pub(crate) fn read(json: &[u8]) -> Result<Forest, String> {
    let document: Document = serde_json::from_slice(json).map_err(|error| format!("no model of XGBoost: {error}"))?;
    let learner = document.learner;
    let booster = learner.gradient_booster;
    let Some(model) = booster.model.filter(|_| booster.name == "gbtree") else {
        return Err(format!("the booster `{}` is not supported; train with `gbtree`", booster.name));
    };
    let parameters = learner.learner_model_param;
    let several = |count: &str| count.parse::<u32>().is_ok_and(|count| count > 1);
    if several(&parameters.num_class) || parameters.num_target.as_deref().is_some_and(several) {
        return Err("the model has several classes or targets; a risk needs one".into());
    }
    let features = parameters.num_feature.parse().map_err(|_| "`num_feature` is no number".to_owned())?;
    let text = parameters.base_score.trim_start_matches('[').trim_end_matches(']');
    let base_score: f32 =
        text.parse().map_err(|_| format!("`base_score` is {:.40}, not one number", parameters.base_score))?;
    let mut forest = Forest::new(features, learner.feature_names, Precision::SingleLess)?;
    (forest.base, forest.link) = match learner.objective.name.as_str() {
        "reg:squarederror" | "reg:absoluteerror" => (f64::from(base_score), Link::Identity),
        "binary:logistic" | "reg:logistic" if base_score > 0.0 && base_score < 1.0 => {
            (f64::from(-(1.0 / base_score - 1.0).ln()), Link::Sigmoid { slope: 1.0 })
        }
        "binary:logistic" | "reg:logistic" => {
            return Err(format!("`base_score` is {base_score}; of a probability it is between 0 and 1"));
        }
        other => {
            return Err(format!(
                "the objective `{other:.60}` is not supported; train with `binary:logistic`, `reg:logistic`, \
                 `reg:squarederror` or `reg:absoluteerror`"
            ));
        }
    };
    if !forest.base.is_finite() {
        return Err("`base_score` is no finite number".into());
    }
    for (number, tree) in model.trees.iter().enumerate() {
        add(&mut forest, tree).map_err(|wrong| format!("tree {number}: {wrong}"))?;
    }
    if forest.trees() == 0 {
        return Err("the model has no trees".into());
    }
    Ok(forest)
}

fn add(forest: &mut Forest, tree: &Tree) -> Result<(), String> {
    let nodes = tree.left_children.len();
    let lengths =
        [tree.right_children.len(), tree.split_indices.len(), tree.split_conditions.len(), tree.default_left.len()];
    if nodes == 0 || lengths.iter().any(|length| *length != nodes) {
        return Err(format!("its lists are not of one length ({nodes}, {lengths:?})"));
    }
    if tree.split_type.iter().any(|kind| *kind != 0) {
        return Err("it splits on categories, which is not supported; train on numbers".into());
    }
    if tree.tree_param.size_leaf_vector.as_deref().is_some_and(|size| !matches!(size, "0" | "1")) {
        return Err("its leaves hold several values; a risk needs one".into());
    }
    // Splits and leaves are numbered apart.
    let (mut splits, mut leaves) = (0, 0);
    let number: Vec<Child> = tree
        .left_children
        .iter()
        .map(|left| {
            let count = if *left < 0 { &mut leaves } else { &mut splits };
            *count += 1;
            if *left < 0 { Child::Leaf(*count - 1) } else { Child::Split(*count - 1) }
        })
        .collect();
    let child = |of: i32| usize::try_from(of).ok().and_then(|of| number.get(of).copied());
    let (mut kept, mut values) = (Vec::with_capacity(splits), Vec::with_capacity(leaves));
    for (node, kind) in number.iter().enumerate() {
        if let Child::Leaf(_) = kind {
            values.push(f64::from(tree.split_conditions[node]));
            continue;
        }
        let (Some(left), Some(right)) = (child(tree.left_children[node]), child(tree.right_children[node])) else {
            return Err(format!("a child of node {node} does not exist"));
        };
        let feature = u16::try_from(tree.split_indices[node]).unwrap_or(u16::MAX);
        let (default_left, threshold) = (tree.default_left[node].is_set(), f64::from(tree.split_conditions[node]));
        kept.push((Split { feature, default_left, missing: Missing::Default, threshold }, left, right));
    }
    forest.add(&kept, &values)
}
