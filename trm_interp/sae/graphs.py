"""Circuits as JSON in the form of circuit-tracer's viewer (`graph_models.py`, schema version 1).

There a node is a feature of a layer at a token. Here a layer is a moment, numbered in the order of
the ticks; edges are means over cells, so that there is one context position for all of them.
"""

from typing import Any

import pandas as pd

EVERYWHERE = 0  # ctx_idx of all nodes
VERSION = 1


def graph_of(
    edges: pd.DataFrame, levels: pd.DataFrame, fate: str, about: str, lag: int
) -> dict[str, Any]:
    """The graph of some edges: rows of source_tick, target_tick, source, target, weight.

    levels: rows of tick, feature, activation. Nodes without an edge are left out.
    """
    ends = [("source_tick", "source"), ("target_tick", "target")]
    nodes = sorted(
        {(int(t), int(f)) for tick, of in ends for t, f in zip(edges[tick], edges[of], strict=True)}
    )
    layers = {tick: i for i, tick in enumerate(sorted({tick for tick, _ in nodes}))}
    active = {
        (row["tick"], row["feature"]): float(row["activation"]) for row in levels.to_dict("records")
    }
    return {
        "metadata": {
            "slug": f"circuit-{fate}",
            "scan": about,
            "transcoder_list": [],
            "prompt_tokens": ["all cells"],
            "prompt": f"{fate} runs; edges span {lag} network evaluations",
            "node_threshold": None,
            "schema_version": VERSION,
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": [
            {
                "node_id": node_id(layers[tick], feature),
                "feature": paired(layers[tick], feature),
                "layer": str(layers[tick]),
                "ctx_idx": EVERYWHERE,
                "feature_type": "cross layer transcoder",
                "token_prob": 0.0,
                "is_target_logit": False,
                "run_idx": 0,
                "reverse_ctx_idx": 0,
                "jsNodeId": f"{layers[tick]}_{feature}-0",
                "clerp": f"feature {feature} after tick {tick}",
                "influence": None,
                "activation": active[tick, feature],
            }
            for tick, feature in nodes
        ],
        "links": [
            {
                "source": node_id(layers[edge["source_tick"]], edge["source"]),
                "target": node_id(layers[edge["target_tick"]], edge["target"]),
                "weight": float(edge["weight"]),
            }
            for edge in edges.to_dict("records")
        ],
    }


def node_id(layer: int, feature: int) -> str:
    """As circuit-tracer writes it: layer, feature, context position.

    >>> node_id(2, 17)
    '2_17_0'
    """
    return f"{layer}_{feature}_{EVERYWHERE}"


def paired(layer: int, feature: int) -> int:
    """One number for both (Cantor's pairing), as circuit-tracer numbers its features.

    >>> paired(0, 0), paired(1, 0), paired(0, 1), paired(1, 1)
    (0, 1, 2, 4)
    """
    return (layer + feature) * (layer + feature + 1) // 2 + feature
