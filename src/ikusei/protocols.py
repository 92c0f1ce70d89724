"""The verbs: what a training back end, a sampler, an algorithm and a task can do. Nothing here is inherited from; a class that has
the methods fits.

    Task ─► Sampler ─► Group ─► rewards ─► Algorithm.credit ─► Forest ─► Policy.forward_backward ─► optim_step ─► snapshot ─► Sampler
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.types import Example, Group, Prompt, Response, Sampling, ScoredText, Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

State = Mapping[str, Any]
Metrics = dict[str, float]
LossFunction = Callable[[Outputs, Forest], Loss]


@dataclass(frozen=True)
class ModelSize:
    """How large a policy's model is, in numbers (not bytes): all of its own, those that are trained and those that are not (a critic's
    among them), the size of a hidden state, and its layers."""

    parameters: int
    trained: int
    frozen: int
    hidden: int
    layers: int


class Sampler(Protocol):
    """Writes responses. Frozen at `version`."""

    version: int
    tokenizer: PreTrainedTokenizerBase

    @property
    def context(self) -> int:
        """How many tokens the model holds, prompt and response together."""
        ...

    def sample(self, prompts: Sequence[Prompt], num_responses: int, sampling: Sampling, seed: int) -> Iterator[Group]:
        """Finished groups stream out in the order they finish, one for each prompt, with `num_responses` responses each.

        The random numbers of a response depend on (seed, prompt id, sample index, position) alone.
        """
        ...

    def stream(self, prompt: Prompt, sampling: Sampling, seed: int) -> Iterator[str | Response]:
        """The response of `sample([prompt], 1, sampling, seed)` while it is written: its text in pieces, then the response."""
        ...

    def score(self, prompt: Prompt, texts: Sequence[str], ends: bool = True) -> list[ScoredText]:
        """log P of each text after the prompt, in nats, at temperature 1; with `ends` the token that ends it counts too."""
        ...

    def score_tokens(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """Of each (context, tokens after it): log P in nats, and whether greedy decoding would write these tokens."""
        ...


class Asked(Protocol):
    """What can be asked of a forest."""

    def forward(self, forest: Forest) -> Outputs:
        """Log-probs and entropies of the forest's M scored tokens, and what else its heads say, without gradients."""
        ...


class Reference(Asked, Protocol):
    """A policy that can only be asked, and that may follow the one that learns."""

    def follow(self, share: float) -> None:
        """Its weights become `share` of those that the policy it was made from has now, and 1 - share of its own."""
        ...

    def save(self, folder: Path) -> None:
        """Writes its weights."""
        ...

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote."""
        ...


class Policy(Asked, Protocol):
    """A training back end. `version` counts its updates, `description` says in words how its model is laid out."""

    version: int
    description: str
    tokenizer: PreTrainedTokenizerBase

    @property
    def context(self) -> int:
        """How many tokens the model holds, prompt and response together."""
        ...

    @property
    def rewards(self) -> bool:
        """True of a reward model, whose `forward` says reward_R; False of a language model, which can be sampled from."""
        ...

    @property
    def size(self) -> ModelSize: ...

    @property
    def facts(self) -> dict[str, Any]:
        """What was found out on this machine, in JSON's types: a resumed run uses it again."""
        ...

    def forward_backward(self, forest: Forest, loss: LossFunction) -> Metrics:
        """Adds the gradients of `loss`, which is already divided by the whole step's totals, and returns its metrics."""
        ...

    def optim_step(self, lr: float) -> Metrics:
        """Clips, steps at learning rate `lr`, clears the gradients and makes `version` one higher."""
        ...

    def zero_grad(self) -> None:
        """Forgets gradients that were added and not stepped on."""
        ...

    def snapshot(self, copy: bool = False) -> Sampler:
        """A sampler frozen at this version. It shares the weights and refuses to sample once the policy has stepped; with `copy` it
        holds its own and stays as it was."""
        ...

    def reference(self, moves: bool = False) -> Reference:
        """A frozen policy, as this one is now; one that can `follow` where it `moves`."""
        ...

    def rescale(self, gain: float, bias: float) -> None:
        """Of a reward model: from now on it says gain * reward + bias."""
        ...

    def export(self, folder: Path) -> None:
        """Writes the model alone, in Hugging Face layout."""
        ...

    def save(self, folder: Path) -> None:
        """Writes what `export` does and, beside it, what training needs to go on bit-equal."""
        ...

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote."""
        ...


class Algorithm(Protocol):
    """Frozen numbers and pure functions. One that learns from the texts of the data, not from samples, says so by a class attribute
    `supervised = True`; one with streams or a state of its own has the methods of `Crediting` or `Stateful` too.

    `needs` is a property, or a class attribute without an annotation, by which a dataclass would make it a field.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What the loop has to provide before `credit`, as streams on the forest, from forwards without gradient:

            old           old_logp_M: the policy that wrote the responses
            reference     ref_logp_M
            value         old_value_M, and a critic, which speaks as out.value_M in the loss
            mismatched    other_logp_M and other_ref_logp_M: each group's responses after the prompt of the group before it (KTO)

        and no stream, but a head or an order: `reward`, a reward model, which speaks as out.reward_R; `tiers`, that sampled responses are
        ranked by their totals, so that a group has pairs.
        """
        ...

    def keep(self, group: Group) -> bool:
        """False: there is nothing to learn here, so no forward and no backward."""
        ...

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        """Sums over M, R or pairs, over the step's totals, so that parts add up."""
        ...


@runtime_checkable
class Crediting(Protocol):
    """An algorithm that lays streams of its own on the forest."""

    def credit(self, groups: Sequence[Group], forest: Forest, state: State) -> dict[str, Tensor]:
        """Once a step, all kept groups together, before the split: streams such as advantage_M."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An algorithm whose numbers change from step to step. Its state is data that the loop holds and the checkpoint keeps, in JSON's
    types."""

    def start(self) -> State:
        """The state before the first step."""
        ...

    def advance(self, state: State, metrics: Metrics) -> State:
        """The state after the step."""
        ...


def first_state(algorithm: Algorithm) -> State:
    """The state before the first step: {} of an algorithm that keeps none."""
    return algorithm.start() if isinstance(algorithm, Stateful) else {}


def next_state(algorithm: Algorithm, state: State, metrics: Metrics) -> State:
    """The state after a step with these metrics: the same of an algorithm that keeps none."""
    return algorithm.advance(state, metrics) if isinstance(algorithm, Stateful) else state


def credited(algorithm: Algorithm, groups: Sequence[Group], forest: Forest, state: State) -> Forest:
    """The forest with the streams of the algorithm's credit, where it has one. `groups` are those on the forest, in their order."""
    return forest.with_streams(algorithm.credit(groups, forest, state)) if isinstance(algorithm, Crediting) else forest


class Task(Protocol):
    """Where prompts come from. Rows are random access, so that (seed, step) says which are taken and resuming needs no more."""

    rewards: ClassVar[tuple[str, ...]]  # the paths of those that serve where a recipe names none

    def num_rows(self, split: Split) -> int | None:
        """How many rows the split has; None where they are generated without end."""
        ...

    def row(self, split: Split, index: int) -> Example:
        """The same row for the same index, always. Rows of `test` are never rows of `train`."""
        ...


class Reward(Protocol):
    """A number for one answer, or several by name, or None where it does not apply."""

    def __call__(self, prompt: Prompt, response: str, **columns: Any) -> float | dict[str, float] | None: ...
