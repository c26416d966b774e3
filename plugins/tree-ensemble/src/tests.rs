//! Files that are good, and files that are not.

use crate::{lightgbm, rules::Model, xgboost};
use anomaly::{
    contract::aether::plugin::types::{Column, Level, Observation, Risk, Subject, SubjectKind},
    scoring::Assessment,
};

/// Feature 0 under 0.5: -2; else feature 1 under 10: 0, else 3. Missing goes right, then left.
const XGBOOST: &str = r#"{"learner":{"feature_names":[],"feature_types":[],"gradient_booster":{"model":{
  "gbtree_model_param":{"num_trees":"1"},"tree_info":[0],"trees":[{"base_weights":[],"categories":[],
  "default_left":[0,0,1,0,0],"id":0,"left_children":[1,-1,3,-1,-1],"right_children":[2,-1,4,-1,-1],
  "split_conditions":[0.5,-2,10,0,3],"split_indices":[0,0,1,0,0],"split_type":[0,0,0,0,0],
  "tree_param":{"num_nodes":"5","size_leaf_vector":"1"}}]},"name":"gbtree"},
  "learner_model_param":{"base_score":"[5E-1]","num_class":"0","num_feature":"2","num_target":"1"},
  "objective":{"name":"binary:logistic"}},"version":[3,2,0]}"#;

/// The same tree, from 0 and with a mean of 0.
const LIGHTGBM: &str = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=1\n\
objective=binary sigmoid:1\nfeature_names=cpu io\n\nTree=0\nnum_leaves=3\nnum_cat=0\nsplit_feature=0 1\n\
threshold=0.5 10\ndecision_type=8 10\nleft_child=-1 -2\nright_child=1 -3\nleaf_value=-2 0 3\nis_linear=0\n\n\nend of trees\n";

const FOREST: &str = r#"{"format":"aether-isolation-forest","version":1,"features":2,"scale":4.0,"trees":[
  {"feature":[0,1],"threshold":[0.5,10],"default_left":[0,1],"left":[-1,-2],"right":[1,-3],"leaf":[8,4,2]}]}"#;

const FEATURES: &str = r#"{"features":[
  {"name":"cpu","metric":"system.cpu.utilization","of":"max","cells":3},
  {"name":"io","metric":"system.disk.io_time","of":"last","cells":1,"grid":"history"}],
  "cause":"model.disk","horizon_ms":3600000}"#;

fn model(name: &str, bytes: &str, features: &str) -> Result<Model, String> {
    Model::read("{}", |asset| match asset {
        "features.json" => Some(features.into()),
        other => (other == name).then(|| bytes.into()),
    })
}

fn observed(cpu: f64, io: f64) -> Observation {
    let column = |input, value| Column { input, attributes: vec![], start: 0, step: 1, values: vec![f64::NAN, value] };
    let subject = Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels: vec![] };
    Observation { subject, at: 0, columns: vec![column(0, cpu), column(15, io)], events: vec![] }
}

fn risk(model: &Model, cpu: f64, io: f64) -> Risk {
    match model.assess(&observed(cpu, io)) {
        Assessment::Risk(risk) => risk,
        Assessment::Insufficient(missing) => panic!("{missing}"),
    }
}

#[test]
fn the_three_kinds_of_model_answer() {
    let sigmoid = |margin: f64| 1.0 / (1.0 + (-margin).exp());
    let unnamed = XGBOOST.to_owned();
    for (name, bytes) in [("model.json", unnamed.as_str()), ("model.txt", LIGHTGBM)] {
        let model = model(name, bytes, FEATURES).expect("a model");
        for (cpu, io, margin) in
            [(0.2, 50.0, -2.0), (0.9, 5.0, 0.0), (0.9, 50.0, 3.0), (f64::NAN, 50.0, 3.0), (0.9, f64::NAN, 0.0)]
        {
            let risk = risk(&model, cpu, io);
            assert!((risk.score - sigmoid(margin)).abs() < 1e-6, "{name} {cpu} {io}: {risk:?}");
        }
        let risk = risk(&model, 0.9, 50.0);
        assert_eq!((risk.level, risk.cause.as_str(), risk.horizon), (Level::Critical, "model.disk", Some(3_600_000)));
        assert!(risk.reason.contains("is 0.9526 (score 0.95; critical from 0.90) over 1 trees"), "{}", risk.reason);
        assert_eq!(risk.contributions.len(), 2);
        assert_eq!(risk.contributions[1].input, 15);
    }
    let model = model("model.json", FOREST, FEATURES).expect("a forest");
    assert!((risk(&model, 0.2, 0.0).score - 0.25).abs() < 1e-12);
    assert!((risk(&model, 0.9, 5.0).score - 0.5).abs() < 1e-12);
    assert!((risk(&model, f64::NAN, 11.0).score - 0.5f64.sqrt()).abs() < 1e-12);
}

#[test]
fn too_few_features_say_nothing() {
    let model = model("model.json", XGBOOST, FEATURES).expect("a model");
    match model.assess(&observed(f64::NAN, f64::NAN)) {
        Assessment::Insufficient(missing) => {
            assert_eq!(missing, "0 of the model's 2 features are known; `cpu`, for one, is not");
        }
        Assessment::Risk(risk) => panic!("{risk:?}"),
    }
}

#[test]
fn missing_and_wrong_assets_are_named() {
    let told = |name, bytes: &str, features| model(name, bytes, features).unwrap_err();
    assert!(Model::read("{}", |_| None).unwrap_err().starts_with("the assets hold no `features.json`"));
    assert!(Model::read(r#"{"least":1}"#, |_| None).unwrap_err().starts_with("unknown field `least`"));
    assert!(told("model.ubj", "", FEATURES).starts_with("the assets hold neither `model.json`"));
    let both = Model::read("{}", |asset| Some(if asset == "features.json" { FEATURES } else { "" }.into()));
    assert_eq!(both.unwrap_err(), "the assets hold `model.json` and `model.txt`; leave one");
    assert!(told("model.json", XGBOOST, "{").starts_with("`features.json`: EOF"));
    assert_eq!(
        told("model.json", &XGBOOST.replace("\"num_feature\":\"2\"", "\"num_feature\":\"3\""), FEATURES),
        "`features.json` tells of 2 features, and `model.json` reads 3"
    );
    assert_eq!(
        told("model.txt", &LIGHTGBM.replace("cpu io", "io cpu"), FEATURES),
        "feature 0 is `io` in the model and `cpu` in `features.json`"
    );
}

#[test]
fn what_xgboost_models_cannot_do_here_is_told() {
    for (from, to, told) in [
        ("binary:logistic", "rank:ndcg", "the objective `rank:ndcg` is not supported"),
        ("\"name\":\"gbtree\"", "\"name\":\"dart\"", "the booster `dart` is not supported; train with `gbtree`"),
        ("\"num_class\":\"0\"", "\"num_class\":\"3\"", "the model has several classes"),
        ("[5E-1]", "[5E-1,5E-1]", "`base_score` is [5E-1,5E-1], not one number"),
        ("[5E-1]", "1.5", "`base_score` is 1.5; of a probability it is between 0 and 1"),
        ("\"split_type\":[0", "\"split_type\":[1", "tree 0: it splits on categories, which is not supported"),
        ("\"left_children\":[1", "\"left_children\":[0", "tree 0: node 0 is reached twice"),
        ("\"left_children\":[1", "\"left_children\":[9", "tree 0: a child of node 0 does not exist"),
        ("\"right_children\":[2", "\"right_children\":[1", "tree 0: leaf 0 is reached twice"),
        ("[0,0,1,0,0],\"split_type\"", "[0,0],\"split_type\"", "tree 0: its lists are not of one length"),
        ("\"trees\":", "\"leaves\":", "no model of XGBoost: missing field `trees`"),
    ] {
        assert!(XGBOOST.contains(from), "{from}");
        let found = xgboost::read(XGBOOST.replacen(from, to, 1).as_bytes()).map(|_| ()).unwrap_err();
        assert!(found.starts_with(told), "{found}");
    }
    // The older spelling of the base score.
    assert!(xgboost::read(XGBOOST.replace("[5E-1]", "5E-1").as_bytes()).is_ok());
}

#[test]
fn what_lightgbm_models_cannot_do_here_is_told() {
    for (from, to, told) in [
        ("tree\nversion", "version", "no model of LightGBM"),
        ("num_class=1", "num_class=4", "the model has 4 classes; a risk needs one"),
        ("max_feature_idx=1", "max_feature_idx=x", "`max_feature_idx` is x, which is no such number"),
        ("objective=binary sigmoid:1", "objective=poisson", "the objective `poisson` is not supported"),
        (
            "objective=binary",
            "average_output\nobjective=binary",
            "the objective `binary sigmoid:1` with averaged output",
        ),
        ("num_leaves=3", "num_leaves=900000000", "tree 0: it has 900000000 leaves; 1 to 400000"),
        ("num_leaves=3", "num_leaves=4", "tree 0: `leaf_value` does not hold 4 numbers"),
        ("decision_type=8", "decision_type=9", "tree 0: it splits on categories, which is not supported"),
        ("decision_type=8", "decision_type=12", "tree 0: node 0 treats missing values in the unknown way 3"),
        ("right_child=1", "right_child=0", "tree 0: node 0 is reached twice"),
        ("right_child=1", "right_child=-9", "tree 0: a child is leaf 8, which does not exist"),
        ("leaf_value=-2", "leaf_value=nan", "tree 0: the value of leaf 0 is no finite number"),
        ("is_linear=0", "is_linear=1", "tree 0: its leaves are linear models"),
        ("Tree=0", "Wood=0", "the model has no trees"),
    ] {
        assert!(LIGHTGBM.contains(from), "{from}");
        let found = lightgbm::read(LIGHTGBM.replacen(from, to, 1).as_bytes()).map(|_| ()).unwrap_err();
        assert!(found.starts_with(told), "{found}");
    }
}

#[test]
fn what_is_no_isolation_forest_is_told() {
    for (from, to, told) in [
        ("\"version\":1", "\"version\":2", "`model.json`: the format `aether-isolation-forest` 2 is not"),
        ("\"scale\":4.0", "\"scale\":0", "`model.json`: `scale` is 0; it is above zero"),
        ("\"left\":[-1,-2]", "\"left\":[-1]", "`model.json`: tree 0: its lists are not of one length"),
        ("\"left\":[-1", "\"left\":[0", "`model.json`: tree 0: node 0 is reached twice"),
    ] {
        assert!(FOREST.contains(from), "{from}");
        let found = model("model.json", &FOREST.replacen(from, to, 1), FEATURES).unwrap_err();
        assert!(found.starts_with(told), "{found}");
    }
}

/// Cut, repeated and overwritten bytes are refused or read, and never a panic. A seeded walk (xorshift64).
#[test]
fn mutated_files_are_survived() {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("below a usize")
    };
    for (name, good) in [("model.json", XGBOOST), ("model.txt", LIGHTGBM), ("model.json", FOREST)] {
        for _ in 0..4_000 {
            let mut bytes = good.as_bytes().to_vec();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = b"0123456789-.,[]{}\"=e \n"[random(22)],
                    1 => bytes[at] = bytes[at].wrapping_add(1),
                    2 => bytes.truncate(at.max(1)),
                    _ => {
                        let end = (at + random(40)).min(bytes.len());
                        bytes.extend_from_within(at..end);
                    }
                }
            }
            let model = Model::read("{}", |asset| match asset {
                "features.json" => Some(FEATURES.into()),
                other => (other == name).then(|| bytes.clone()),
            });
            if let Ok(model) = model {
                model.assess(&observed(0.9, 50.0));
            }
        }
    }
    let nested = "[".repeat(100_000);
    assert!(xgboost::read(nested.as_bytes()).is_err());
}

#[test]
fn the_schema_tells_the_defaults() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("schema.json")).unwrap();
    let default = &schema["properties"]["least_share"]["default"];
    let text = format!(r#"{{"least_share":{default}}}"#);
    let config = aether_plugin::parse::<crate::rules::Config>(&text).unwrap();
    assert_eq!(config, crate::rules::Config::default());
}
