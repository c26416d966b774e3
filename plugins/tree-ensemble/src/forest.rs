//! Trees in memory, whatever library grew them, and the walk through them.
//!
//! Each library compares in its own precision, and a row that lies on a threshold goes another way in another one. So a
//! node's threshold is kept as the library has it, and [`Precision`] says how a value is compared with it.

/// Nodes of all trees together, and trees.
pub(crate) const NODES_MAXIMUM: usize = 400_000;
pub(crate) const TREES_MAXIMUM: usize = 10_000;
pub(crate) const FEATURES_MAXIMUM: usize = 1_024;

/// Marks a child that is a leaf; the other bits are the leaf's index.
const LEAF: u32 = 1 << 31;

/// What a missing value (NaN) does at a node, and what counts as missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Missing {
    /// NaN takes the default direction.
    Default,
    /// NaN is zero, and compared.
    IsZero,
    /// Zero (to 1e-35) and NaN take the default direction.
    WithZero,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    pub(crate) feature: u16,
    pub(crate) default_left: bool,
    pub(crate) missing: Missing,
    pub(crate) threshold: f64,
}

/// A child as a file names it, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Child {
    Split(usize),
    Leaf(usize),
}

impl Child {
    fn packed(self) -> u32 {
        let index = |index: usize| u32::try_from(index).unwrap_or(LEAF - 1) & (LEAF - 1);
        match self {
            Child::Split(split) => index(split),
            Child::Leaf(leaf) => LEAF | index(leaf),
        }
    }
}

/// How a value is compared with a threshold, and values are summed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Precision {
    /// XGBoost: in single precision, left if less; summed in single precision.
    SingleLess,
    /// LightGBM: in double precision, left if less or equal; summed in double precision.
    DoubleLessOrEqual,
    /// scikit-learn: the value in single precision, left if less or equal; summed in double precision.
    SingleLessOrEqual,
}

/// From the sum over the trees to the prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Link {
    Identity,
    /// 1 / (1 + exp(-slope · sum)).
    Sigmoid {
        slope: f64,
    },
    /// The mean over this many iterations.
    Mean {
        of: f64,
    },
    /// 2^(-sum / scale): the anomaly score of an isolation forest.
    Isolation {
        scale: f64,
    },
}

/// A whole model.
#[derive(Debug)]
pub(crate) struct Forest {
    splits: Vec<Node>,
    leaves: Vec<f64>,
    roots: Vec<u32>,
    pub(crate) features: usize,
    /// As the model has them; empty: it has none.
    pub(crate) names: Vec<String>,
    pub(crate) precision: Precision,
    /// What the sum begins with.
    pub(crate) base: f64,
    pub(crate) link: Link,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    split: Split,
    left: u32,
    right: u32,
}

/// What a model says of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Prediction {
    /// The sum, before the link.
    pub(crate) margin: f64,
    pub(crate) value: f64,
}

impl Forest {
    pub(crate) fn new(features: usize, names: Vec<String>, precision: Precision) -> Result<Self, String> {
        if !(1..=FEATURES_MAXIMUM).contains(&features) {
            return Err(format!("the model reads {features} features; 1 to {FEATURES_MAXIMUM} are supported"));
        }
        if !names.is_empty() && names.len() != features {
            return Err(format!("the model names {} of its {features} features", names.len()));
        }
        let (splits, leaves, roots) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { splits, leaves, roots, features, names, precision, base: 0.0, link: Link::Identity })
    }

    pub(crate) fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Adds a tree, after it was seen that it is one: from the root every child exists and is reached once, so that no
    /// walk is longer than the tree is deep. Without a split, leaf 0 is all of it.
    pub(crate) fn add(&mut self, splits: &[(Split, Child, Child)], leaves: &[f64]) -> Result<(), String> {
        if self.roots.len() == TREES_MAXIMUM {
            return Err(format!("the model has more than {TREES_MAXIMUM} trees"));
        }
        if self.splits.len() + self.leaves.len() + splits.len() + leaves.len() > NODES_MAXIMUM {
            return Err(format!("the model has more than {NODES_MAXIMUM} nodes"));
        }
        if leaves.is_empty() {
            return Err("it has no leaf".into());
        }
        if let Some(at) = leaves.iter().position(|value| !value.is_finite()) {
            return Err(format!("the value of leaf {at} is no finite number"));
        }
        let mut seen = vec![false; splits.len()];
        let mut leaf_seen = vec![false; leaves.len()];
        let mut waiting = vec![if splits.is_empty() { Child::Leaf(0) } else { Child::Split(0) }];
        while let Some(next) = waiting.pop() {
            let (mark, kind, at) = match next {
                Child::Split(at) => (seen.get_mut(at), "node", at),
                Child::Leaf(at) => (leaf_seen.get_mut(at), "leaf", at),
            };
            let Some(mark) = mark else { return Err(format!("a child is {kind} {at}, which does not exist")) };
            if std::mem::replace(mark, true) {
                return Err(format!("{kind} {at} is reached twice, so this is no tree"));
            }
            let Child::Split(at) = next else { continue };
            let (split, left, right) = splits[at];
            if usize::from(split.feature) >= self.features {
                return Err(format!("node {at} splits on feature {}, of {}", split.feature, self.features));
            }
            if split.threshold.is_nan() {
                return Err(format!("the threshold of node {at} is no number"));
            }
            waiting.extend([left, right]);
        }
        let (first_split, first_leaf) = (self.splits.len(), self.leaves.len());
        let moved = |child: Child| match child {
            Child::Split(at) => Child::Split(at + first_split).packed(),
            Child::Leaf(at) => Child::Leaf(at + first_leaf).packed(),
        };
        self.roots.push(moved(if splits.is_empty() { Child::Leaf(0) } else { Child::Split(0) }));
        self.splits.extend(splits.iter().map(|(split, left, right)| Node {
            split: *split,
            left: moved(*left),
            right: moved(*right),
        }));
        self.leaves.extend_from_slice(leaves);
        Ok(())
    }

    /// Predicts for a row of as many values as the model has features; NaN is missing. `used` counts for each feature
    /// at how many nodes of the walk it was asked.
    pub(crate) fn predict(&self, row: &[f64], used: &mut [u32]) -> Prediction {
        let mut sum = self.base;
        for root in &self.roots {
            let mut at = *root;
            while at & LEAF == 0 {
                let node = &self.splits[at as usize];
                let feature = usize::from(node.split.feature);
                used[feature] += 1;
                at = if self.goes_left(&node.split, row[feature]) { node.left } else { node.right };
            }
            let value = self.leaves[(at & !LEAF) as usize];
            sum = match self.precision {
                Precision::SingleLess => f64::from(sum as f32 + value as f32),
                Precision::DoubleLessOrEqual | Precision::SingleLessOrEqual => sum + value,
            };
        }
        Prediction { margin: sum, value: self.linked(sum) }
    }

    fn linked(&self, sum: f64) -> f64 {
        match self.link {
            Link::Identity => sum,
            Link::Sigmoid { .. } if self.precision == Precision::SingleLess => {
                // As XGBoost: single precision, and an exponent that cannot overflow it.
                f64::from(1.0 / ((-(sum as f32)).min(88.7).exp() + 1.0))
            }
            Link::Sigmoid { slope } => 1.0 / (1.0 + (-slope * sum).exp()),
            Link::Mean { of } => sum / of,
            Link::Isolation { scale } => (-sum / scale).exp2(),
        }
    }

    fn goes_left(&self, split: &Split, value: f64) -> bool {
        let value = match split.missing {
            Missing::Default if value.is_nan() => return split.default_left,
            Missing::WithZero if value.is_nan() || value.abs() <= f64::from(1e-35f32) => {
                return split.default_left;
            }
            Missing::IsZero if value.is_nan() => 0.0,
            Missing::Default | Missing::IsZero | Missing::WithZero => value,
        };
        match self.precision {
            Precision::SingleLess => (value as f32) < split.threshold as f32,
            Precision::DoubleLessOrEqual => value <= split.threshold,
            Precision::SingleLessOrEqual => f64::from(value as f32) <= split.threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(feature: u16, threshold: f64) -> Split {
        Split { feature, default_left: true, missing: Missing::Default, threshold }
    }

    fn forest(precision: Precision) -> Forest {
        Forest::new(2, vec![], precision).expect("a forest")
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let (s, leaf) = (split(0, 0.5), Child::Leaf);
        for (splits, leaves, told) in [
            (vec![(s, Child::Split(0), leaf(0))], vec![1.0], "node 0 is reached twice, so this is no tree"),
            (vec![(s, leaf(0), leaf(0))], vec![1.0], "leaf 0 is reached twice, so this is no tree"),
            (vec![(s, leaf(0), leaf(7))], vec![1.0], "a child is leaf 7, which does not exist"),
            (vec![(s, leaf(0), Child::Split(3))], vec![1.0], "a child is node 3, which does not exist"),
            (vec![(split(2, 0.5), leaf(0), leaf(1))], vec![1.0, 2.0], "node 0 splits on feature 2, of 2"),
            (vec![(split(0, f64::NAN), leaf(0), leaf(1))], vec![1.0, 2.0], "the threshold of node 0 is no number"),
            (vec![], vec![f64::INFINITY], "the value of leaf 0 is no finite number"),
            (vec![], vec![], "it has no leaf"),
        ] {
            assert_eq!(forest(Precision::SingleLess).add(&splits, &leaves), Err(told.to_owned()));
        }
        let refused = forest(Precision::SingleLess).add(&[], &vec![0.0; NODES_MAXIMUM + 1]);
        assert_eq!(refused, Err("the model has more than 400000 nodes".into()));
        assert!(Forest::new(0, vec![], Precision::SingleLess).is_err());
        assert!(Forest::new(FEATURES_MAXIMUM + 1, vec![], Precision::SingleLess).is_err());
    }

    #[test]
    fn a_chain_as_deep_as_is_allowed_needs_no_stack() {
        let depth = NODES_MAXIMUM / 2 - 1;
        let splits: Vec<_> = (0..depth)
            .map(|i| {
                let right = if i + 1 == depth { Child::Leaf(depth) } else { Child::Split(i + 1) };
                (split(0, 0.5), Child::Leaf(i), right)
            })
            .collect();
        let mut forest = forest(Precision::DoubleLessOrEqual);
        forest.add(&splits, &(0..=depth).map(|i| i as f64).collect::<Vec<_>>()).expect("a tree");
        let mut used = [0; 2];
        assert_eq!(forest.predict(&[1.0, 0.0], &mut used).value, depth as f64);
        assert_eq!(used, [depth as u32, 0]);
    }

    #[test]
    fn each_library_compares_in_its_own_way() {
        let goes_left = |precision, missing, value: f64, threshold: f64| {
            let mut forest = forest(precision);
            let split = Split { feature: 0, default_left: true, missing, threshold };
            forest.add(&[(split, Child::Leaf(0), Child::Leaf(1))], &[1.0, 0.0]).expect("a tree");
            forest.predict(&[value, 0.0], &mut [0; 2]).value > 0.5
        };
        let tenth = f64::from(0.1f32);
        use {Missing::*, Precision::*};
        // 0.1 in double precision is less than 0.1 in single precision.
        assert!(!goes_left(SingleLess, Default, 0.1, tenth), "equal in single precision is not less");
        assert!(goes_left(SingleLessOrEqual, Default, 0.1, tenth));
        assert!(!goes_left(SingleLessOrEqual, Default, 0.1, 0.1), "0.1 becomes a little more in single precision");
        assert!(goes_left(DoubleLessOrEqual, Default, 0.1, 0.1));
        assert!(goes_left(DoubleLessOrEqual, Default, f64::NAN, -1.0));
        assert!(!goes_left(DoubleLessOrEqual, IsZero, f64::NAN, -1.0));
        assert!(goes_left(DoubleLessOrEqual, WithZero, 0.0, -1.0));
        assert!(goes_left(DoubleLessOrEqual, WithZero, -1e-36, -1.0));
        assert!(!goes_left(DoubleLessOrEqual, WithZero, 1e-34, -1.0));
    }
}
