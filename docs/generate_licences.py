"""Write the tables of docs/explanation/licences.md from the cards and the rules, so that the page cannot drift.

python docs/generate_licences.py
"""

from __future__ import annotations

from pathlib import Path

from dermlab.licensing import USES, Verdict, cards, triage

PAGE = Path(__file__).parent / "explanation" / "licences.md"
BEGIN, END = "<!-- written by docs/generate_licences.py: {} -->", "<!-- end of {} -->"
SHORT = {"viable": "viable", "viable with conditions": "conditions", "unknown": "unknown", "blocked": "**blocked**"}


def reason(verdict: Verdict) -> str:
    """Return the gravest reason, with the way to the card that it comes from."""
    if not verdict.reasons:
        return ""
    first = verdict.reasons[0]
    chain = f" ({' ← '.join(first.chain)})" if len(first.chain) > 1 else ""
    return f"{first.text}{chain}".replace("|", "\\|")


def table(kind: str) -> str:
    """Return the verdicts on every card of a kind, one column a use, and why for a medical product."""
    lines = [f"| card | licence | {' | '.join(USES)} | foremost reason (commercial-medical) |", "|---" * 7 + "|"]
    for name in sorted(name for name, card in cards().items() if card.kind == kind):
        card = cards()[name]
        verdicts = [triage([name], use)[0] for use in USES]
        read = "" if not card.unverified else " (unverified)"
        row = [f"`{name}`", f"{card.licence}{read}", *(SHORT[one.verdict] for one in verdicts), reason(verdicts[-1])]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def counts() -> str:
    """Return how many cards there are and how many were read at a source."""
    told = []
    for kind, plural in (("model", "models"), ("dataset", "data sets")):
        of_kind = [card for card in cards().values() if card.kind == kind]
        n_read = sum(not card.unverified for card in of_kind)
        told.append(f"{len(of_kind)} {plural} ({n_read} read, {len(of_kind) - n_read} unverified)")
    return f"There are cards of {' and '.join(told)}."


def page(text: str) -> str:
    """Return the page's text with its generated parts written anew."""
    for name, part in (("counts", counts()), ("models", table("model")), ("data sets", table("dataset"))):
        begin, end = BEGIN.format(name), END.format(name)
        before, rest = text.split(begin, 1)
        text = f"{before}{begin}\n\n{part}\n\n{end}{rest.split(end, 1)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
