//! The original libraries train models and predict; the same files must give the same numbers here. `make test` names
//! the Python that has the libraries (`host/xtask/setup/python.sh models`), and runs this.

use crate::rules::Model;
use std::{fs, path::Path, process::Command};

#[test]
#[ignore = "needs XGBoost, LightGBM and scikit-learn; `make test` runs it with AETHER_MODELS_PYTHON"]
fn predictions_agree_with_the_original_libraries() {
    let python = std::env::var("AETHER_MODELS_PYTHON").expect("AETHER_MODELS_PYTHON names the Python to use");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/models/agreement.py");
    let folder = std::env::temp_dir().join(format!("aether-models-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let made = Command::new(python).arg("-B").arg(program).arg(&folder).output().expect("Python runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    print!("{}", String::from_utf8_lossy(&made.stdout));
    let mut told = Vec::new();
    for case in fs::read_dir(&folder).expect("the cases") {
        told.push(compare(&case.expect("a case").path()));
    }
    fs::remove_dir_all(&folder).expect("removes what it made");
    told.sort();
    println!("{}", told.join("\n"));
    assert!(told.len() >= 16, "cases are missing");
}

fn compare(case: &Path) -> String {
    let name = case.file_name().expect("a name").to_string_lossy().into_owned();
    let model = Model::read("{}", |asset| fs::read(case.join(asset)).ok());
    let model = model.unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    let (mut greatest, mut rows) = (0.0f64, 0);
    for line in fs::read_to_string(case.join("rows.csv")).expect("the rows").lines() {
        let numbers: Vec<f64> = line.split(',').map(|number| number.parse().expect("a number")).collect();
        let (row, expected) = numbers.split_at(numbers.len() - 2);
        let found = model.predict(row);
        // An isolation forest has no raw prediction of its own.
        let raw = if name.starts_with("forest") { found.value } else { found.margin };
        for (found, expected) in [(raw, expected[0]), (found.value, expected[1])] {
            let difference = (found - expected).abs();
            assert!(difference <= 1e-6, "{name}, row {rows}: {found} instead of {expected}");
            greatest = greatest.max(difference);
        }
        rows += 1;
    }
    assert_eq!(rows, 400, "{name}");
    format!("{name}: {rows} rows, greatest difference {greatest:.1e}")
}
