"""What a person should know beside the decision of a pilot, a sentence each."""

from __future__ import annotations

from analysis.audit import Audit
from analysis.pilot import Look, Pilot
from analysis.pilot_decision import PilotDecision
from analysis.verdict import FOLLOW, UNIFORM
from apt_core.estimates import CONFIDENCE


def caveats(
    pilot: Pilot, found: Look, decision: PilotDecision, audit: Audit | None, audit_problem: str = ""
) -> list[str]:
    """Sentences that belong to the decision, what limits it most first.

    Args:
        audit: of the first run; None: there is none.
        audit_problem: why what was measured cannot be read; empty if it was not measured.
    """
    said = []
    missing = [each for each in found.trainings if each.state != "finished"]
    if missing:
        said.append(f"{len(missing)} of {len(found.trainings)} trainings are not finished; the answer is provisional.")
    said.append(
        f"The intervals ({CONFIDENCE:.0%}, Student's t, {decision.seeds} seeds, paired by seed) are about other seeds "
        "of the same training. They know nothing of other examples, other data or another backbone."
    )
    if decision.seeds < 5:
        said.append("Intervals from so few seeds are wide, and rest on differences that scatter normally.")
    if decision.split == "validation":
        said.append(
            "The numbers are from the validation split, which also chose each run's checkpoint: they flatter every "
            "arm. "
            + (
                "Measure the test split once, after deciding."
                if pilot.has_test
                else "The data has no test split to confirm them on."
            )
        )
    else:
        said.append("The numbers are from the test split, which chose nothing. A second look would make it less so.")
    if pilot.budget is not None and pilot.budget.weighed_by != UNIFORM:
        said.append(
            f"The lengths come from the first seed's full-length run alone (seed {pilot.seeds[0]}), and what they "
            "were shared out by may have been measured on the validation examples"
            + (
                " that the arms are compared on."
                if decision.split == "validation"
                else ", which also chose checkpoints."
            )
        )
    if pilot.shots is not None:
        said.append(
            f"Trained on {pilot.shots} examples per class, drawn anew for every seed; with all examples the answer can "
            "be another one."
        )
    if audit is None and audit_problem:
        said.append(f"What was measured of the first run cannot be read, and so not be audited: {audit_problem}")
    elif audit is None:
        said.append("The first run was not audited: nobody has checked whether its gates say what tokens are worth.")
    elif audit.verdict != FOLLOW:
        said.append(f"Gates are not always interpretable. The audit of the first run says: {audit.verdict}.")
    else:
        said.append("Gates are not always interpretable; here the audit of the first run found them to be.")
    said.append(f"{len(decision.compared)} comparisons are made, each at {CONFIDENCE:.0%}; none is corrected for that.")
    return said
