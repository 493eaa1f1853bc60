"""Presets of training: settings of the model and of the run together, by name. Needs no torch."""

# how the 6x6 checkpoints that ship were trained, and the models that are compared with them
_RECIPE6: dict[str, object] = {
    **{"steps": 1250, "batch_size": 128, "lr": 1e-3, "weight_decay": 0.1, "warmup": 0.16},
    **{"ema": 0.995, "eval_every": 25, "dtype": "bfloat16", "compile": True},
}

PRESETS: dict[str, dict[str, object]] = {
    # the published recipe, which is what the defaults of `TrainConfig` say
    "published": {},
    # the published model where a GPU is lent by the minute: no prefix, which the recursion does
    # without and which costs a sixth of the positions; depth and rate follow the wall clock
    "flagship": {
        **{"prefix": 0, "budget": 25.0, "curriculum": True, "decay": "cosine"},
        **{"dtype": "bfloat16", "compile": True},
    },
    # 8 000 steps of Muon, which needs the normalised SwiGLU, with the decays of its source; one
    # supervision step per puzzle in the first quarter learns faster than all 16 from the start
    "flagship-muon": {
        **{"prefix": 1, "normalised_swiglu": True, "optimizer": "muon", "muon_lr": 0.02},
        **{"steps": 8000, "batch_size": 384, "lr": 1e-4, "decay": "cosine", "warmup": 0.0},
        **{"weight_decay": 1.0, "muon_decay": 0.005, "n_sup_warm": 1, "n_sup_warm_until": 0.25},
        **{"loss": "softmax", "smoothing": 0.2, "halt_weight": 0.05, "ema": 0.9},
        **{"dtype": "bfloat16", "compile": True},
    },
    # for --architecture hrm, after HRM's recipe for 1 000 Sudokus on one GPU: 20 000 epochs, no
    # average; the source has AdamATan2 in the place of AdamW
    "hrm": {
        **{"steps": 52_083, "batch_size": 384, "lr": 7e-5, "weight_decay": 1.0},
        **{"warmup": 0.038, "ema": 0.0, "dtype": "bfloat16"},
    },
    # 6x6 puzzles with as many weights as `sudoku6`, 0.17 M, and its recipe. For --architecture hrm,
    # without an average, as published
    "hrm6": {
        **{"d_model": 40, "multiple": 8, "n_heads": 4, "prefix": 0},
        **_RECIPE6,
        "ema": 0.0,
    },
    # for --architecture direct: the network of `sudoku6`, evaluated once
    "direct6": {
        **{"d_model": 96, "multiple": 32, "prefix": 0, "n_layers": 2},
        **_RECIPE6,
        "n_sup": 1,
    },
    # for --architecture equilibrium; in float32, as residuals of bfloat16 do not reach the
    # tolerance
    "equilibrium6": {
        **{"d_model": 96, "multiple": 32, "prefix": 0, "h_cycles": 2, "l_cycles": 8},
        **_RECIPE6,
        **{"backward_cycles": 8, "dtype": "float32", "compile": False},
    },
    # a smoke test on 4x4 puzzles: seconds
    "tiny": {
        **{"d_model": 32, "multiple": 16, "prefix": 0, "h_cycles": 2, "l_cycles": 2},
        **{"steps": 300, "batch_size": 32, "n_sup": 4, "lr": 3e-3, "weight_decay": 0.1},
        **{"warmup": 0.1, "ema": 0.98, "eval_every": 100},
    },
    # the checkpoints that ship, on two CPU cores
    "sudoku6": {
        **{"d_model": 96, "multiple": 32, "prefix": 0},
        **_RECIPE6,
        "target": 0.87,
    },
    "sudoku9": {
        **{"d_model": 128, "multiple": 32, "prefix": 0},
        **{"steps": 4000, "batch_size": 128, "n_sup": 8, "lr": 1e-3, "weight_decay": 0.1},
        **{"warmup": 0.05, "ema": 0.99, "eval_every": 250, "dtype": "bfloat16", "compile": True},
    },
    # for 10x10 mazes, `data make maze10`: artifacts/trm-maze10-mixing
    "maze10": {
        **{"d_model": 96, "multiple": 32, "prefix": 0, "h_cycles": 2, "l_cycles": 4},
        **{"normalised_swiglu": True, "optimizer": "muon", "muon_lr": 0.02, "muon_decay": 0.005},
        **{"steps": 5000, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.1, "warmup": 0.02},
        **{"n_sup": 8, "n_sup_warm": 1, "n_sup_warm_until": 0.2, "stagger": True, "decay": "late"},
        **{"ema": 0.99, "eval_every": 250, "dtype": "bfloat16", "compile": True},
    },
    # for `data make arc-small`: the rule comes through the embedding of the identifier, whose rows
    # are seen seldom, so they learn by sign-SGD as in the public code
    "arc-small": {
        **{"mixer": "attention", "d_model": 96, "multiple": 32, "prefix": 1, "n_heads": 4},
        **{"h_cycles": 2, "l_cycles": 3, "normalised_swiglu": True},
        **{"rope_base": 50.0, "n_sup": 2, "lr": 1e-3},
        # at a rate of .02 the gradients grow without end from step 500 on
        **{"optimizer": "muon", "muon_lr": 0.006, "muon_decay": 0.05},
        **{"prefix_optimizer": "sign-sgd", "prefix_lr": 1e-2, "prefix_decay": 0.1},
        **{"steps": 6000, "batch_size": 64, "weight_decay": 0.1, "warmup": 0.02, "decay": "late"},
        **{"ema": 0.99, "eval_every": 300, "dtype": "bfloat16", "compile": True},
    },
}
