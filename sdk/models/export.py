#!/usr/bin/env python3
"""Writes a model as assets for the component `tree-ensemble`.

    from export import export
    export(model, "assets/", features=[{"name": "cpu", "metric": "system.cpu.utilization", "of": "mean", "cells": 30}])

or, for a model that was saved with joblib or pickle (load only files that you trust):

    python export.py model.joblib assets/ features.json

A scikit-learn IsolationForest becomes `model.json` in the format `aether-isolation-forest`; a Booster or classifier of
XGBoost its own `model.json`, one of LightGBM its own `model.txt`. docs/plugins.md tells both formats and that of
`features.json`. Needs nothing but the library that made the model.
"""

import json
import math
import pathlib
import sys


def average_path_length(samples):
    """Mean path length of an unsuccessful search in a binary tree of so many samples (Liu, Ting and Zhou, 2008)."""
    if samples <= 1:
        return 0.0
    if samples == 2:
        return 1.0
    return 2.0 * (math.log(samples - 1.0) + 0.57721566490153286) - 2.0 * (samples - 1.0) / samples


def isolation_tree(tree, columns):
    """One tree: splits and leaves numbered apart, a leaf as the complement of its number."""
    import numpy as np

    number, splits, leaves = {}, [], []
    for node in range(tree.node_count):
        is_leaf = tree.children_left[node] == -1
        number[node] = ~len(leaves) if is_leaf else len(splits)
        (leaves if is_leaf else splits).append(node)
    depth = {0: 0}
    for node in range(tree.node_count):  # parents come before their children
        if number[node] >= 0:
            for child in (tree.children_left[node], tree.children_right[node]):
                depth[child] = depth[node] + 1
    missing_left = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count))
    thresholds = []
    for node in splits:
        # scikit-learn asks `float32(x) <= float64(threshold)`: the greatest float32 that is not above decides the same.
        threshold = np.float32(tree.threshold[node])
        if float(threshold) > float(tree.threshold[node]):
            threshold = np.nextafter(threshold, np.float32(-np.inf))
        thresholds.append(float(str(threshold)))
    return {
        "feature": [int(columns[tree.feature[node]]) for node in splits],
        "threshold": thresholds,
        "default_left": [int(missing_left[node]) for node in splits],
        "left": [number[tree.children_left[node]] for node in splits],
        "right": [number[tree.children_right[node]] for node in splits],
        "leaf": [depth[node] + average_path_length(int(tree.n_node_samples[node])) for node in leaves],
    }


def isolation_forest(model):
    """The document of a fitted IsolationForest. Its prediction is `-model.score_samples(rows)`."""
    trees = [
        isolation_tree(estimator.tree_, columns)
        for estimator, columns in zip(model.estimators_, model.estimators_features_)
    ]
    names = getattr(model, "feature_names_in_", [])
    return {
        "format": "aether-isolation-forest",
        "version": 1,
        "features": int(model.n_features_in_),
        "feature_names": [str(name) for name in names],
        "scale": len(trees) * average_path_length(int(model.max_samples_)),
        "trees": trees,
    }


def export(model, folder, features=None, **meaning):
    """Writes `model` into `folder`, and `features` (with `levels`, `range`, `cause`, `horizon_ms`) if it is given."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kind = type(model).__module__.split(".")[0]
    if type(model).__name__ == "IsolationForest":
        (folder / "model.json").write_text(json.dumps(isolation_forest(model), separators=(",", ":")) + "\n")
    elif kind == "xgboost":
        model.save_model(folder / "model.json")
    elif kind == "lightgbm":
        getattr(model, "booster_", model).save_model(folder / "model.txt")
    else:
        raise TypeError(f"cannot export a {type(model).__name__}; give an IsolationForest, or a model of XGBoost or LightGBM")
    if features is not None:
        (folder / "features.json").write_text(json.dumps({"features": features, **meaning}, indent=2) + "\n")


def main(arguments):
    if len(arguments) not in (2, 3):
        sys.exit("usage: export.py MODEL FOLDER [FEATURES.JSON]")
    try:
        import joblib as loader
        model = loader.load(arguments[0])
    except ImportError:
        import pickle
        with open(arguments[0], "rb") as file:
            model = pickle.load(file)
    meaning = json.loads(pathlib.Path(arguments[2]).read_text()) if len(arguments) == 3 else {}
    export(model, arguments[1], **meaning)


if __name__ == "__main__":
    main(sys.argv[1:])
