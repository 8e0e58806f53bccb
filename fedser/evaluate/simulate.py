"""A federation in one process: source, alone, federated, personal, pooled and newcomer side by side.

``RUN/results.json``, schema 1 (fractions of 1, unless "percent" is said)::

    {"kind": "simulation", "schema": 1, "name": str,
     "created": "2026-01-31T12:00:00+00:00", "versions": {"fedser": .., "torch": .., "python": ..},
     "git": str | null, "config": {the whole configuration}, "seeds": [int], "device": "cpu",
     "seconds": float, "peak_memory_mb": float,
     "classes": [str],                       in the order of the confusion matrices and of the model's head
     "left_out": {emotion: utterances},      target utterances that are neither adapted on nor scored
     "source": {"kind": "trained" | "bundle", "name": str, "corpora": {name: utterances}},
     "sites": [{"name": str, "utterances": int, "speakers": int, "emotions": {emotion: int},
                "normalisation": {"rule": str, "kappa": float, "reason": str}}],
     "settings": {NAME: {                    source, bn, alone, federated, personal, pooled, newcomer, in this order
         "label": str,                       one line for a table
         "seeds": [{"seed": int, "uar": x, "war": x, "macro_f1": x, "ece": x, "mean_site_uar": x,
                    "worst_site_uar": x, "sites": {site: uar}}],
         "mean": {"uar": x, "war": x, "macro_f1": x, "ece": x, "mean_site_uar": x, "worst_site_uar": x},
         "std": {the same keys},             over seeds, n - 1 in the denominator; 0 for one seed
         "confusion": [[int]],               rows are true, columns predicted; summed over seeds
         "recall": {class: x | null},        from that matrix; null for a class without utterances
         "reliability": [{"confidence": x, "accuracy": x, "count": int}]}},   non-empty bins, all seeds
     "curves": {NAME: [{"seed": int, "round": int, "uar": x, "worst_site_uar": x}]},
                                             federated and personal; round 0 is before the first round
     "uar": {NAME: percent},                 mean over seeds, what --format json prints
     "refusals": [{"seed": int, "setting": str, "round": int, "site": str, "code": str}]}

Beside it ``results.csv`` (one row a setting and seed), ``predictions.csv`` (seed, setting, site, path, emotion,
predicted, confidence) and ``report.html``.
"""
