"""Makes the XGBoost models of this directory, rows for them and XGBoost's own predictions (xgboost 3.2).

    pip install xgboost && python make-xgboost.py      writes xgb-NAME.json and xgb-NAME.csv: f0,…,f4,prediction,
                                                       and xgb-NAME-contributions.csv: c0,…,c4,base (Saabas)
"""
import os
import numpy as np
import xgboost as xgb

here = os.path.dirname(os.path.abspath(__file__))
r = np.random.Generator(np.random.PCG64(6))
n, names, types = 3000, ["item.price", "item.kind", "user.age", "context.hour", "retrieval_score"], ["q", "c", "q", "q", "q"]
x = r.standard_normal((n, 5)).astype(np.float32)
x[:, 1] = r.integers(0, 40, n)
x[:, 2] = np.where(r.random(n) < .5, 0, np.rint(x[:, 2] * 4))
x[:, 3] = r.integers(0, 24, n)
x[r.random(n) < .2, 0] = np.nan
x[r.random(n) < .1, 1] = np.nan
y = np.nan_to_num(x[:, 0], nan=1.5) + np.isin(x[:, 1] % 7, [2, 3]) * 2 + (x[:, 3] > 17) * x[:, 4] + x[:, 2] / 4
y = y + r.standard_normal(n) * .3
rows = x[:120].copy()
rows[3::7, 4] = np.nan
rows[4::7, 2] = np.nan

def make(name, label, rounds=10, category=True, **options):
    kinds = types if category else ["q"] * 5
    def matrix(x, y=None):
        return xgb.DMatrix(x, y, feature_names=names, feature_types=kinds, enable_categorical=category)
    d = matrix(x, label)
    if options["objective"].startswith("rank:"):
        d.set_group(np.full(n // 20, 20))
    p = dict(max_depth=4, eta=.3, nthread=1, seed=1, tree_method="hist", max_cat_to_onehot=4)
    model = xgb.train(dict(p, **options), d, rounds)
    model.save_model(os.path.join(here, "xgb-" + name + ".json"))
    with open(os.path.join(here, "xgb-" + name + ".csv"), "w") as out:
        out.write(",".join(names) + ",prediction\n")
        for row, value in zip(rows, model.predict(matrix(rows))):
            out.write(",".join(repr(float(v)) for v in row) + "," + repr(float(value)) + "\n")
    with open(os.path.join(here, "xgb-" + name + "-contributions.csv"), "w") as out:
        out.write(",".join(names) + ",base\n")
        for row in model.predict(matrix(rows), pred_contribs=True, approx_contribs=True):
            out.write(",".join(repr(float(v)) for v in row) + "\n")

ranks = np.clip(np.rint(y + 2), 0, 6).astype(int)
make("ndcg", ranks, objective="rank:ndcg")
make("squared", y, objective="reg:squarederror", category=False)
make("logistic", (y > 1).astype(int), objective="binary:logistic", rounds=6)
make("poisson", np.exp(np.clip(y, -2, 2)), objective="count:poisson", rounds=6)
make("dart", y, objective="reg:squarederror", booster="dart", rate_drop=.5, rounds=8)
