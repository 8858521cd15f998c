"""From numbers to a verdict on the gates: one check per question, each with a sentence, and thresholds that are stated.

A verdict is conservative: every check must be good for ``FOLLOW``, and one that is bad is enough for ``DO_NOT``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from analysis.agreement import Correlation
from analysis.curves import ONE_SIDED, ONE_SIDED_OF_OTHERS, CurveScores, OrderScore
from analysis.resampling import Interval
from analysis.side_by_side import CONFIDENCE
from analysis.stability import SeedAgreement, Stability

Verdict = Literal["follow the gates", "follow with care", "do not follow"]
FOLLOW: Verdict = "follow the gates"
CARE: Verdict = "follow with care"
DO_NOT: Verdict = "do not follow"
Level = Literal["good", "weak", "bad"]
UNIFORM = "uniform"

MIN_EXAMPLES = 30
MIN_GAIN_SHARE = 0.02
MIN_AREA_SHARE = 0.02
MAX_CHANCE, MAX_CHANCE_OF_LAYERS = 0.05, 0.2
FEW_LAYERS = 4
STABLE, UNSTABLE = 0.8, 0.5
SAME_OVER_SEEDS = 0.5
SAME_GATES = 0.8
MIN_MOVED = 0.02
THRESHOLDS = {
    "MIN_EXAMPLES": (MIN_EXAMPLES, "examples with a loss; with fewer nothing is concluded"),
    "MIN_GAIN_SHARE": (
        MIN_GAIN_SHARE,
        "part of the loss without prefix by which the prefix must lower it, interval above 0",
    ),
    "MIN_AREA_SHARE": (
        MIN_AREA_SHARE,
        "part of the prefix's gain that the order must save over random orders, interval above 0",
    ),
    "ONE_SIDED": (ONE_SIDED, "probability with which one more random order saves less than the gates must"),
    "ONE_SIDED_OF_OTHERS": (ONE_SIDED_OF_OTHERS, "the same for the other importances, of which the best is taken"),
    "MAX_CHANCE": (
        MAX_CHANCE,
        "largest probability of as good an agreement with the measured effect by accident (halved where layers and "
        "tokens are both tested)",
    ),
    "MAX_CHANCE_OF_LAYERS": (
        MAX_CHANCE_OF_LAYERS,
        "the same for layers where tokens inside them agree: tokens do not make up for layers that disagree",
    ),
    "FEW_LAYERS": (
        FEW_LAYERS,
        "layers under which their agreement can be by accident whatever it is: it counts as weak",
    ),
    "STABLE": (STABLE, "rank correlation late in training from which an order counts as stable"),
    "UNSTABLE": (UNSTABLE, "rank correlation under which it counts as not stable"),
    "SAME_OVER_SEEDS": (SAME_OVER_SEEDS, "mean rank correlation of the layers with other seeds from which they agree"),
    "SAME_GATES": (SAME_GATES, "rank correlation of the measured gates with the last recorded ones"),
    "MIN_MOVED": (MIN_MOVED, "relative change of the weights over the training under which they have not moved"),
    "CONFIDENCE": (CONFIDENCE, "of every interval"),
}
"""name -> value and what it decides; all numbers of the audit are held against these"""

ORDERS = {
    "gate": "the gates",
    "norm": "norm-weighted gates",
    "attention": "attention mass",
    "effect": "first-order effect",
}
"""key of ``IMPORTANCES`` -> in a sentence"""


class Check(NamedTuple):
    """One question put to the numbers."""

    name: str
    level: Level
    text: str  # sentences with the numbers
    short: str = ""  # why nothing else was asked, in a few words


class Evidence(NamedTuple):
    """All that a verdict rests on; None: not measured."""

    curves: CurveScores
    empty_loss: float | None  # nats, mean without any virtual token
    metric: str  # with and without the prefix, in words
    gates_differ: bool  # whether the gate masses of the tokens are not all the same
    layers: Mapping[str, Correlation | None]  # key of ``IMPORTANCES`` -> with the measured effect of layers
    tokens: Mapping[str, Correlation | None]
    stability: Stability | None
    seeds: SeedAgreement | None
    recorded: float | None  # rank correlation of the measured gate mass with the recorded one
    outdated: str  # why the measures are not those of the run as it is now; empty: they are
    other_data: str  # why the examples are not those of the run; empty: they are


class Decision(NamedTuple):
    """What follows from the evidence."""

    verdict: Verdict
    use: str  # key of ``IMPORTANCES``, or ``UNIFORM``
    headline: str
    checks: list[Check]


def decide(evidence: Evidence) -> Decision:
    """The verdict, with the checks that led to it in the order of their weight."""
    blocked = _first_questions(evidence)
    if any(check.level == "bad" for check in blocked):
        return Decision(DO_NOT, UNIFORM, _headline(DO_NOT, UNIFORM, blocked), blocked)
    scores = evidence.curves.orders
    random, reverse = over_random("gate", scores.get("gate"), evidence.curves.random_orders), _over_reverse(evidence)
    agreement = _agreement(evidence)
    checks = [*blocked, random, reverse, agreement, *_stable(evidence)]
    if evidence.other_data:
        checks.append(Check("data", "weak", evidence.other_data))
    levels = {check.level for check in checks}
    if levels == {"good"}:
        verdict = FOLLOW
    elif "bad" in levels or reverse.level != "good" or "good" not in (random.level, agreement.level):
        verdict = DO_NOT
    else:
        verdict = CARE
    use = _instead(evidence) if verdict == DO_NOT else "gate"
    return Decision(verdict, use, _headline(verdict, use, checks), checks)


def _first_questions(evidence: Evidence) -> list[Check]:
    """What must be so before an order of tokens means anything."""
    checks = []
    if evidence.outdated:
        checks.append(Check("up to date", "bad", evidence.outdated, "the run has changed since it was measured"))
    curves = evidence.curves
    if curves.gain is None or curves.examples < MIN_EXAMPLES:
        text = (
            f"Not enough evidence: {curves.examples} examples with a loss; it takes {MIN_EXAMPLES} to conclude "
            "anything."
        )
        return [*checks, Check("enough examples", "bad", text, "not enough evidence")]
    checks.append(_prefix_matters(curves, evidence.empty_loss, evidence.metric))
    if not evidence.gates_differ:
        text = (
            "The gates of all virtual tokens are the same, are not finite or were not measured: there is no order to "
            "follow."
        )
        checks.append(Check("gates differ", "bad", text, "they give no order"))
    return checks


def _prefix_matters(curves: CurveScores, empty_loss: float | None, metric: str) -> Check:
    gain, name = curves.gain, "the prefix matters"
    basis = f"over {curves.examples} examples ({metric})"
    if gain.high < 0:
        text = (
            f"The prefix raises the loss: taking all of it away changes the loss by {_signed(gain)} {basis}. What "
            "single tokens are worth cannot be judged from this loss."
        )
        return Check(name, "bad", text, "the prefix raises the loss")
    if gain.low <= 0 or not empty_loss or gain.value < MIN_GAIN_SHARE * empty_loss:
        text = (
            f"The prefix does nothing measurable here: taking all of it away changes the loss by {_signed(gain)} "
            f"{basis}; it takes an interval above 0 and {MIN_GAIN_SHARE:.0%} of the loss without it. The run is "
            "untrained, or does not use its prefix, or more examples are needed to see it."
        )
        return Check(name, "bad", text, "the prefix does nothing measurable here")
    text = f"The prefix matters: taking all of it away raises the loss by {_shown(gain)} {basis}."
    return Check(name, "good", text)


def over_random(name: str, score: OrderScore | None, random_orders: int) -> Check:
    """Whether an importance does better than no information at all."""
    check = "better than random"
    if score is None or score.over_random is None:
        return Check(check, "weak", f"Removal in the order of {ORDERS[name]} was not measured against random orders.")
    found = score.over_random
    text = (
        f"Taking away first what {ORDERS[name]} call least important saves {_signed(found)} of loss against random "
        "orders, averaged over all sizes"
    )
    if score.share is not None:
        text += f"; that is {score.share:.0%} of what the prefix gains"
    text += f". It beats {score.random_beaten} of {random_orders} random orders"
    likely = ONE_SIDED if name == "gate" else ONE_SIDED_OF_OTHERS
    if score.random_bound is None:
        return Check(check, "bad" if found.high < 0 else "weak", f"{text}, too few to say what chance does.")
    text += f"; one more random order would save less than {score.random_bound:.3g} nats, {100 * likely:.3g}% sure."
    if found.value <= 0:
        return Check(check, "bad", text)
    clear = found.low > 0 and found.value > score.random_bound and (score.share or 0) >= MIN_AREA_SHARE
    return Check(check, "good" if clear else "weak", text)


def _over_reverse(evidence: Evidence) -> Check:
    score = evidence.curves.orders.get("gate")
    name = "better than reversed"
    if score is None or score.over_reverse is None:
        return Check(name, "weak", "Removal in the reverse order of the gates was not measured.")
    found = score.over_reverse
    text = f"Against the reverse order, the most important first, it saves {_signed(found)} of loss."
    return Check(name, "good" if found.low > 0 else "weak" if found.value > 0 else "bad", text)


def _agreement(evidence: Evidence) -> Check:
    name = "agrees with measured effect"
    layers, tokens = evidence.layers.get("gate"), evidence.tokens.get("gate")
    found = [each for each in (layers, tokens) if each is not None]
    if not found:
        text = "Gates cannot be held against the measured effect of layers: it is unknown, or the same for all."
        return Check(name, "weak", text)
    limit = MAX_CHANCE / len(found)
    texts = []
    for each, of in ((layers, "layers"), (tokens, "virtual tokens")):
        if each is not None:
            inside = " inside their layers" if of != "layers" else ""
            texts.append(
                f"rank correlation {_bare(each.spearman)} over {each.count} {of}; by accident as high{inside} with "
                f"probability {each.chance:.2g}"
            )
    text = (
        f"Gate mass against the loss that leaving out costs, of layers per virtual token: {'; and '.join(texts)} "
        f"(accepted: up to {limit:.3g})."
    )
    if any(each.spearman.value < 0 for each in found):
        return Check(name, "bad", text)
    few = layers is None or layers.count < FEW_LAYERS
    if layers is not None and layers.chance <= limit:
        return Check(name, "good", text)
    if tokens is not None and tokens.chance <= limit and (few or layers.chance <= MAX_CHANCE_OF_LAYERS):
        return Check(name, "good", text)
    if few and tokens is None:
        text += f" {layers.count} layers cannot show more; single tokens could."
    return Check(name, "weak", text)


def _stable(evidence: Evidence) -> list[Check]:
    checks = []
    found, recorded = evidence.stability, evidence.recorded
    if found is None or (found.layers is None and found.tokens is None):
        why = found.basis if found else "no recorded gates"
        checks.append(Check("stable", "weak", f"Whether the order holds late in training is not known ({why})."))
    else:
        known = {"layers": found.layers, "virtual tokens": found.tokens}
        known = {name: value for name, value in known.items() if value is not None}
        shown = ", ".join(f"{value:.2f} for {name}" for name, value in known.items())
        text = f"Order in the third against the last quarter of the training: rank correlation {shown}, {found.basis}."
        checks.append(Check("stable", _level(min(known.values()), UNSTABLE, STABLE), text))
    if found is not None and found.moved is not None and found.moved < MIN_MOVED:
        text = f"The weights changed by {found.moved:.1%} over the training: they are about where they started."
        checks.append(Check("trained", "weak", text))
    seeds = evidence.seeds
    if seeds is not None and seeds.mean is not None:
        many = f"{seeds.runs - 1} other seed{'s' if seeds.runs > 2 else ''}"
        text = f"With {many}, the order of this run's layers has a mean rank correlation of {seeds.mean:.2f}"
        text += f" (lowest {seeds.lowest:.2f})." if seeds.runs > 2 else "."
        if seeds.without:
            text += f" {seeds.without} more gave no order: diverged, or all layers alike."
        checks.append(Check("same over seeds", "good" if seeds.mean >= SAME_OVER_SEEDS else "weak", text))
    if recorded is not None:
        text = (
            "Measured gate mass, of the adapter that was kept on validation data, against the recorded one at the end "
            f"of the training: rank correlation {recorded:.2f}."
        )
        if recorded < SAME_GATES:
            text += " Budgets rest on the measured one; what is said of its stability is about the other."
        checks.append(Check("same gates", "good" if recorded >= SAME_GATES else "weak", text))
    return checks


def _instead(evidence: Evidence) -> str:
    """The importance that clearly beats random orders (and its reverse, where measured) by most; else uniform."""
    clear = {
        name: score.over_random.value
        for name, score in evidence.curves.orders.items()
        if name != "gate"
        and over_random(name, score, evidence.curves.random_orders).level == "good"
        and (score.over_reverse is None or score.over_reverse.low > 0)
        and ((layers := evidence.layers.get(name)) is None or layers.spearman.value >= 0)
    }
    return max(clear, key=clear.__getitem__, default=UNIFORM)


def _headline(verdict: Verdict, use: str, checks: Sequence[Check]) -> str:
    if verdict == FOLLOW:
        return "Follow the gates."
    if verdict == CARE:
        return "Follow with care: not every check is good."
    instead = "uniform lengths" if use == UNIFORM else ORDERS[use]
    reasons = [check.short for check in checks if check.short]
    if not reasons and all(check.level != "bad" for check in checks):
        reasons = ["not enough evidence for them"]
    return f"Do not follow the gates{': ' if reasons else ''}{', '.join(reasons)}. Use {instead}."


def _level(value: float, bad: float, good: float) -> Level:
    return "good" if value >= good else "weak" if value >= bad else "bad"


def _shown(found: Interval) -> str:
    return f"{found.value:.3g} nats ({CONFIDENCE:.0%} interval {found.low:.3g} to {found.high:.3g})"


def _signed(found: Interval) -> str:
    return f"{found.value:+.3g} nats ({CONFIDENCE:.0%} interval {found.low:+.3g} to {found.high:+.3g})"


def _bare(found: Interval) -> str:
    return f"{found.value:.2f} (interval {found.low:.2f} to {found.high:.2f})"
