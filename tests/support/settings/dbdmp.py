"""Partially annotated instances."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_ext.trainers import nnUNetTrainerDBDMP as DBDMP
from support.settings import Case, Times, channel_dropout, term, terms_present

CASES = {
    "dbdmp.dropout": Case(DBDMP, 0.2, channel_dropout, pytest.approx(0.2, abs=0.02)),
    "dbdmp.supervised_weight": Case(DBDMP, 1.0, term("symmetric_ce"), Times(4)),
    "dbdmp.tversky_weight": Case(DBDMP, 3.0, term("tversky"), Times(3)),
    "dbdmp.tversky_alpha": Case(DBDMP, 0.9, term("tversky")),
    "dbdmp.tversky_beta": Case(DBDMP, 0.1, term("tversky")),
    "dbdmp.ce_weight": Case(DBDMP, 1.6, term("symmetric_ce"), Times(2), {"dbdmp": {"rce_weight": 0.0}}),
    "dbdmp.rce_weight": Case(DBDMP, 2.0, term("symmetric_ce"), Times(2), {"dbdmp": {"ce_weight": 0.0}}),
    "dbdmp.partial_ce_weight": Case(DBDMP, 3.0, term("partial_ce"), Times(3)),
    "dbdmp.pseudo_label_weight": Case(DBDMP, 0.0, terms_present, ["partial_ce", "symmetric_ce", "tversky"]),
    "dbdmp.ramp_epochs": Case(DBDMP, 0, term("pseudo_labels"), Times(np.exp(5))),
    "dbdmp.temperature": Case(DBDMP, 0.05, term("pseudo_labels")),
}
