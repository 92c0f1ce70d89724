"""KL estimators: k1 and k3 are unbiased, k3 is never below 0, and varies less where policies are near.   joschu.net/blog/kl-approx.html

Two random policies over words, further and further apart; the exact KL is a sum over the words, the estimates are of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ikusei.maths import kl_estimate
from ikusei.report.svg import AFTER, BEFORE, INK, LOST
from ikusei.reproduce.claim import Claim, Criterion, SeedResult
from ikusei.reproduce.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORDS, SAMPLES = 32, 200_000
FAR = (0.05, 0.1, 0.2, 0.4, 0.8)  # spread of the log-odds between the two
NEAR = 0.1  # nats


def measure(workspace: Workspace) -> SeedResult:
    """At each distance the exact KL, and of each estimator mean, standard error, least value and variance."""
    chance = torch.Generator().manual_seed(workspace.seed)
    rows = []
    for far in FAR:
        p = torch.randn(WORDS, generator=chance, dtype=torch.float64).log_softmax(-1)
        q = (p + far * torch.randn(WORDS, generator=chance, dtype=torch.float64)).log_softmax(-1)
        words = torch.multinomial(p.exp(), SAMPLES, replacement=True, generator=chance)
        row: dict[str, Any] = {"kl": float((p.exp() * (p - q)).sum())}
        for kind in ("k1", "k2", "k3"):
            x = kl_estimate(p[words], q[words], kind)
            row[kind] = {
                "mean": float(x.mean()),
                "error": float(x.std() / SAMPLES**0.5),
                "least": float(x.min()),
                "variance": float(x.var()),
            }
        rows.append(row)
    return {"rows": rows}


def furthest(found: SeedResult, kind: str) -> float:
    """The largest deviation from the exact KL, in standard errors."""
    return max(abs(row[kind]["mean"] - row["kl"]) / row[kind]["error"] for row in found["rows"])


def near(found: SeedResult) -> list[Any]:
    return [row for row in found["rows"] if row["kl"] < NEAR]


def draw(axes: Sequence[Axes], found: Sequence[SeedResult]) -> None:
    for kind, colour in (("k1", BEFORE), ("k2", LOST), ("k3", AFTER)):
        rows = sorted((row for each in found for row in each["rows"]), key=lambda row: row["kl"])
        kls = [row["kl"] for row in rows]
        axes[0].plot(kls, [row[kind]["mean"] / row["kl"] for row in rows], "o-", color=colour, markersize=3, linewidth=1, label=kind)
        axes[1].plot(kls, [row[kind]["variance"] for row in rows], "o-", color=colour, markersize=3, linewidth=1)
    axes[0].set(xscale="log", xlabel="exact KL, nats", title="mean over the exact KL")
    axes[1].set(xscale="log", yscale="log", xlabel="exact KL, nats", title="variance of one sample")
    axes[0].legend(frameon=False, labelcolor=INK)


CLAIM = Claim(
    says="k1 and k3 are unbiased estimates of the KL; k3 is never negative and varies less where the policies are near",
    source="Schulman 2020, joschu.net/blog/kl-approx.html",
    setup=f"Random pairs of policies over {WORDS} words at five distances, {SAMPLES:,} samples of each.",
    measure=measure,
    criteria=(
        Criterion("k1 within 3 standard errors of the exact KL", lambda f: furthest(f, "k1") <= 3, lambda f: f"{furthest(f, 'k1'):.1f}"),
        Criterion("k3 within 3 standard errors", lambda f: furthest(f, "k3") <= 3, lambda f: f"{furthest(f, 'k3'):.1f}"),
        Criterion("k2 is biased: beyond 3 standard errors", lambda f: furthest(f, "k2") > 3, lambda f: f"{furthest(f, 'k2'):.1f}"),
        Criterion(
            "k3 never below 0",
            lambda f: all(row["k3"]["least"] >= 0 for row in f["rows"]),
            lambda f: f"{min(row['k3']['least'] for row in f['rows']):.1g}",
        ),
        Criterion(
            f"k3 varies less than k1 below {NEAR} nats",
            lambda f: all(row["k3"]["variance"] < row["k1"]["variance"] for row in near(f)),
            lambda f: f"{max(row['k3']['variance'] / row['k1']['variance'] for row in near(f)):.2f} of it",
        ),
    ),
    draw=draw,
    panels=2,
    quick=True,
)
