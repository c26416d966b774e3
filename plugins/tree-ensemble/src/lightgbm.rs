//! Models of LightGBM, as `Booster.save_model("model.txt")` writes them: blocks of `key=value`, one for each tree.

use crate::forest::{Child, Forest, Link, Missing, NODES_MAXIMUM, Precision, Split};
use std::collections::BTreeMap;

/// Bits of `decision_type`.
const CATEGORICAL: u32 = 1;
const DEFAULT_LEFT: u32 = 2;

/// One block: keys with their values, until an empty line.
type Block<'a> = BTreeMap<&'a str, &'a str>;

pub(crate) fn read(bytes: &[u8]) -> Result<Forest, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "no model of LightGBM: it is not text".to_owned())?;
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some("tree") {
        return Err("no model of LightGBM: it does not begin with the line `tree`".into());
    }
    let header = block(&mut lines);
    for (key, what) in [("num_class", "classes"), ("num_tree_per_iteration", "trees an iteration")] {
        if value(&header, key)? != "1" {
            return Err(format!("the model has {:.20} {what}; a risk needs one", value(&header, key)?));
        }
    }
    let features = one::<usize>(&header, "max_feature_idx")?.saturating_add(1);
    let names =
        header.get("feature_names").map_or_else(Vec::new, |names| names.split(' ').map(str::to_owned).collect());
    let mut forest = Forest::new(features, names, Precision::DoubleLessOrEqual)?;
    let average = header.contains_key("average_output");
    let link = link(header.get("objective").copied().unwrap_or("regression"), average)?;
    loop {
        let tree = block(&mut lines);
        // After the last tree come `end of trees` and what a prediction does not need.
        if !tree.contains_key("Tree") {
            break;
        }
        let number = forest.trees();
        add(&mut forest, &tree).map_err(|wrong| format!("tree {number}: {wrong}"))?;
    }
    if forest.trees() == 0 {
        return Err("the model has no trees".into());
    }
    forest.link = link.unwrap_or(Link::Mean { of: forest.trees() as f64 });
    Ok(forest)
}

/// None: the mean of the trees.
fn link(objective: &str, average: bool) -> Result<Option<Link>, String> {
    let mut words = objective.split_whitespace();
    let name = words.next().unwrap_or_default();
    let options: Vec<&str> = words.collect();
    match (name, options.as_slice()) {
        ("regression" | "regression_l1" | "huber" | "fair" | "quantile" | "mape", options)
            if !options.contains(&"sqrt") =>
        {
            Ok(if average { None } else { Some(Link::Identity) })
        }
        ("binary", options) if !average => {
            let slope = options.iter().find_map(|option| option.strip_prefix("sigmoid:")).unwrap_or("1");
            let slope = slope.parse().ok().filter(|slope: &f64| slope.is_finite());
            Ok(Some(Link::Sigmoid { slope: slope.ok_or("the `sigmoid` of the objective is no number")? }))
        }
        ("cross_entropy", []) if !average => Ok(Some(Link::Sigmoid { slope: 1.0 })),
        _ => Err(format!(
            "the objective `{objective:.60}`{} is not supported; train with `binary`, `cross_entropy` or a regression",
            if average { " with averaged output" } else { "" }
        )),
    }
}

fn block<'a>(lines: &mut std::str::Lines<'a>) -> Block<'a> {
    let mut block = Block::new();
    for line in lines.skip_while(|line| line.trim().is_empty()) {
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        block.insert(key, value);
    }
    block
}

fn value<'a>(block: &Block<'a>, key: &str) -> Result<&'a str, String> {
    block.get(key).copied().ok_or_else(|| format!("`{key}` is missing"))
}

fn one<T: std::str::FromStr>(block: &Block<'_>, key: &str) -> Result<T, String> {
    value(block, key)?.trim().parse().map_err(|_| format!("`{key}` is {:.40}, which is no such number", block[key]))
}

/// A list of exactly so many numbers.
fn list<T: std::str::FromStr>(block: &Block<'_>, key: &str, length: usize) -> Result<Vec<T>, String> {
    let numbers: Option<Vec<T>> =
        value(block, key)?.split_ascii_whitespace().take(length + 1).map(|word| word.parse().ok()).collect();
    let numbers = numbers.ok_or_else(|| format!("`{key}` holds what is no number"))?;
    if numbers.len() == length { Ok(numbers) } else { Err(format!("`{key}` does not hold {length} numbers")) }
}

fn add(forest: &mut Forest, tree: &Block<'_>) -> Result<(), String> {
    let leaves: usize = one(tree, "num_leaves")?;
    if !(1..=NODES_MAXIMUM).contains(&leaves) {
        return Err(format!("it has {leaves} leaves; 1 to {NODES_MAXIMUM} are supported"));
    }
    if tree.get("is_linear").is_some_and(|linear| *linear != "0") {
        return Err("its leaves are linear models, which is not supported; train without `linear_tree`".into());
    }
    let values: Vec<f64> = list(tree, "leaf_value", leaves)?;
    let count = leaves - 1;
    if count == 0 {
        return forest.add(&[], &values);
    }
    let features: Vec<u32> = list(tree, "split_feature", count)?;
    let thresholds: Vec<f64> = list(tree, "threshold", count)?;
    let decisions: Vec<u32> = list(tree, "decision_type", count)?;
    let left: Vec<i64> = list(tree, "left_child", count)?;
    let right: Vec<i64> = list(tree, "right_child", count)?;
    // Below zero: the complement of the leaf's index.
    let child = |of: i64| {
        let index = usize::try_from(if of < 0 { !of } else { of }).unwrap_or(usize::MAX);
        if of < 0 { Child::Leaf(index) } else { Child::Split(index) }
    };
    let mut splits = Vec::with_capacity(count);
    for node in 0..count {
        let decision = decisions[node];
        if decision & CATEGORICAL != 0 {
            return Err("it splits on categories, which is not supported; train on numbers".into());
        }
        let missing = match decision >> 2 {
            0 => Missing::IsZero,
            1 => Missing::WithZero,
            2 => Missing::Default,
            other => return Err(format!("node {node} treats missing values in the unknown way {other}")),
        };
        let split = Split {
            feature: u16::try_from(features[node]).unwrap_or(u16::MAX),
            default_left: decision & DEFAULT_LEFT != 0,
            missing,
            threshold: thresholds[node],
        };
        splits.push((split, child(left[node]), child(right[node])));
    }
    forest.add(&splits, &values)
}
