"""Makes the LightGBM models of this directory, rows for them and LightGBM's own predictions (lightgbm 4.7).

    pip install lightgbm && python make-lightgbm.py      writes NAME.txt and NAME.csv: f0,…,f5,prediction, and
                                                         lightgbm-bases.csv: the mean of each model's raw predictions

The models are small, from made data, and between them use what a model file can: missing values of each kind,
categories, every output transform, averaged trees.
"""
import os
import lightgbm as lgb
import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
r = np.random.Generator(np.random.PCG64(5))
n, names = 4000, ["item.price", "item.kind", "user.age", "context.hour", "retrieval_score", "item.unused"]
x = r.standard_normal((n, 6)).astype(np.float32).astype(np.float64)
x[:, 1] = r.integers(0, 70, n)
x[:, 2] = np.where(r.random(n) < .5, 0, np.rint(x[:, 2] * 4))
x[:, 3] = r.integers(0, 24, n)
x[r.random(n) < .2, 0] = np.nan
x[:, 5] = 1
y = np.nan_to_num(x[:, 0], nan=1.5) + np.isin(x[:, 1] % 7, [2, 3]) * 2 + (x[:, 3] > 17) * x[:, 4] + x[:, 2] / 4
y = y + r.standard_normal(n) * .3
rows = x[:120].copy()
rows[::7, 1] = -1
rows[1::7, 1] = 200
rows[2::7, 1] = np.nan
rows[3::7, 4] = np.nan
rows[4::7, 2] = np.nan
rows[5::11, 2] = 1e-36
rows[6::14, 1] = 69.9
rows[13::14, 1] = -0.5
rows = rows.astype(np.float32).astype(np.float64)

bases = []

def make(name, label, rounds=12, category=True, **options):
    p = dict(num_leaves=15, learning_rate=.2, min_data_in_leaf=20, verbose=-1, seed=1, deterministic=True,
             force_row_wise=True, num_threads=1, **options)
    group = np.full(n // 20, 20) if p["objective"] in ("lambdarank", "rank_xendcg") else None
    data = lgb.Dataset(x, label, group=group, feature_name=names, categorical_feature=[1] if category else [],
                       params=dict(zero_as_missing=p.get("zero_as_missing", False), use_missing=p.get("use_missing", True)))
    model = lgb.train(p, data, rounds)
    model.save_model(os.path.join(here, name + ".txt"))
    with open(os.path.join(here, name + ".csv"), "w") as out:
        out.write(",".join(names) + ",prediction\n")
        for row, value in zip(rows, model.predict(rows)):
            out.write(",".join(repr(float(v)) for v in row) + "," + repr(float(value)) + "\n")
    bases.append((name, float(model.predict(rows[:1], pred_contrib=True)[0, -1])))

ranks = np.clip(np.rint(y + 2), 0, 6).astype(int)
make("lambdarank", ranks, objective="lambdarank")
make("no-missing", ranks, objective="rank_xendcg", use_missing=False)
make("zero-missing", y, objective="regression", zero_as_missing=True, category=False)
make("binary", (y > 1).astype(int), objective="binary", sigmoid=1.5, rounds=6)
make("averaged", (y > 1).astype(int), objective="binary", boosting="rf", bagging_freq=1, bagging_fraction=.6, rounds=6)
make("poisson", np.exp(np.clip(y, -2, 2)), objective="poisson", rounds=6)
make("square", y * np.abs(y), objective="regression", reg_sqrt=True, rounds=6)
make("entropy", 1 / (1 + np.exp(-y)), objective="cross_entropy", rounds=4)
make("softplus", 1 / (1 + np.exp(-y)), objective="cross_entropy_lambda", rounds=4)
with open(os.path.join(here, "lightgbm-bases.csv"), "w") as out:
    out.write("name,base\n" + "".join(f"{name},{base!r}\n" for name, base in bases))
