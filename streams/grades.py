"""How grave a statistical finding is: level IV to II by the product-risk matrix, from evidence and severity.

The matrix asks for the chance that an item hurts somebody over its life, and how severely. No stream tells that chance;
it is put together from what the stage knows, at its cautious end, and assumptions that stand in the severity rules:

1. *How often something is wrong.* For pass rates the lower confidence bound of the failure rate, in the window where it
   is highest: the chance that an item has the defect. For counts the lower bound of the excess, the exact Poisson one
   (Garwood 1936, *Biometrika* 28, 437-442) less what was expected, in the week where it is largest, over the items in
   use for which a cell's reports speak (``exposed``). The share of the excess in the count would not do: a finding has
   at least a third more than expected, so that the share lies in the matrix's two highest bands for every finding, and
   neither the number of the injured nor their exposure would count.
2. *Whom it hurts.* The chance that one failing item or complaint leads to an injury (``harm``); a reported injury has
   happened. Kinds without it (satisfaction, quality loss) are of ``plain_level``.
3. *How severely.* One scenario for each severity: it happens to the share of the window's adverse events that are at
   least so severe, and the gravest risk counts, as Delegated Regulation (EU) 2024/3173 has it for several scenarios. So
   one fatal case in a hundred weighs against the hundred, with no threshold at which it begins to count.

The level of that risk is then raised for key supervision and for breadth. The lower bounds make few cases count for
little, but a bound is not a proof: only strong evidence (a small p-value *and* many cases in excess) may reach
``gravest``, and nothing statistical reaches I.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from scipy import special

from detectors.passrate import jeffreys_interval
from schemas.alerts import AlertKind, Evidence
from schemas.severity import Severity, Statistics
from streams.finding import Finding

__all__ = ["statistical_level"]

_SEVERITIES: Final = (1, 2, 3, 4)


def statistical_level(
    kind: AlertKind, finding: Finding, severities: Sequence[int], rules: Severity, *, key: bool, industry: bool
) -> int:
    """The level, 2 (II) to 4 (IV), of a finding.

    Parameters
    ----------
    kind
        The kind of alert that it would make.
    finding
        The evidence.
    severities
        Adverse events of the finding's window by severity, [0 (unknown) to 4].
    rules
        Matrix, levels and assumptions.
    key
        Whether the product is under key supervision.
    industry
        Whether the finding is about products in several regions.
    """
    chosen = rules.statistics
    level = _level_of_risk(kind, finding, severities, rules)
    level -= chosen.raised_by_key_supervision * key + chosen.raised_by_industry * industry
    strong = finding.p_value <= chosen.strong_p and max(finding.excess.values()) >= chosen.strong_excess
    return max(level, chosen.gravest if strong else chosen.gravest_if_weak)


def _level_of_risk(kind: AlertKind, finding: Finding, severities: Sequence[int], rules: Severity) -> int:
    """The level of the gravest scenario."""
    harm = rules.statistics.harm.get(kind)
    if harm is None:
        return rules.statistics.plain_level
    chance = max((_chance(one, rules.statistics) for one in finding.evidence), default=0.0)
    level, risk, level_of_risk = 4, rules.risk, rules.level_of_risk
    for severity, share in enumerate(_reach(tuple(severities), rules.nonconformity.unknown), start=1):
        level = min(level, level_of_risk(risk(chance * share * harm[severity - 1], severity)))
    return level


@lru_cache(maxsize=4_096)
def _reach(events: tuple[int, ...], unknown: int) -> tuple[float, ...]:
    """The share of the adverse events that are at least of each severity, those of an unknown one counted as of one.

    Most findings are echoes, whose events nobody looks at, and ask for the same.
    """
    known = list(events)
    known[unknown] += known[0] if sum(known) else 1
    return tuple(sum(known[severity:]) / sum(known[1:]) for severity in _SEVERITIES)


def _chance(evidence: Evidence, chosen: Statistics) -> float:
    """The lower bound of how often an item in use is defective, or hurt or annoyed somebody, 0 to 1."""
    if evidence.e_value is not None:  # it stands beside findings, over an epoch of its own, whether or not it alarms
        return 0.0
    if evidence.tested:
        if evidence.upper is not None:
            return min(max(1.0 - evidence.upper, 0.0), 1.0)
        return float(jeffreys_interval([evidence.tested], [evidence.observed], chosen.confidence)[0][0])
    if evidence.expected is None or evidence.observed <= 0:
        return 0.0
    least = float(special.gammaincinv(evidence.observed, (1.0 - chosen.confidence) / 2.0))
    return min(max(least - evidence.expected, 0.0) / chosen.exposed, 1.0)
