"""The interfaces of training back ends, samplers, algorithms, tasks and rewards, as typing protocols: a class that has the methods fits;
nothing inherits from them.

    Task ─► Sampler ─► Group ─► rewards ─► Algorithm.credit ─► Forest ─► Policy.forward_backward ─► optim_step ─► snapshot ─► Sampler
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from ikusei.forest import Forest, Loss, Outputs
from ikusei.types import Example, Group, Prompt, Response, Sampling, Split, TextLogprobs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

State = Mapping[str, Any]
Metrics = dict[str, float]
LossFunction = Callable[[Outputs, Forest], Loss]


@dataclass(frozen=True)
class ModelSize:
    """The size of a policy's model: the number of its own parameters; of trained and frozen ones, a critic's among them; hidden size;
    number of layers."""

    parameters: int
    trained: int
    frozen: int
    hidden: int
    layers: int


class Sampler(Protocol):
    """Generates responses with the weights of the policy's `version`."""

    version: int
    tokenizer: PreTrainedTokenizerBase

    @property
    def context(self) -> int:
        """How many tokens the model holds, prompt and response together."""
        ...

    def sample(self, prompts: Sequence[Prompt], num_responses: int, sampling: Sampling, seed: int) -> Iterator[Group]:
        """Yields one group of `num_responses` responses for each prompt, in the order in which groups finish.

        The random numbers of a response depend on (seed, prompt id, sample index, position) alone.
        """
        ...

    def stream(self, prompt: Prompt, sampling: Sampling, seed: int) -> Iterator[str | Response]:
        """Streams the response of `sample([prompt], 1, sampling, seed)`: pieces of its text, then the response itself."""
        ...

    def score(self, prompt: Prompt, texts: Sequence[str], ends: bool = True) -> list[TextLogprobs]:
        """log p(text | prompt) of each text, in nats, at temperature 1; with `ends` including its end token."""
        ...

    def score_tokens(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """For each (context, continuation), both as tokens: log p of the continuation in nats, and whether it is the greedy one."""
        ...


class ForwardPass(Protocol):
    """A model that can be run forward."""

    def forward(self, forest: Forest) -> Outputs:
        """Log-probs and entropies of the forest's M target tokens, values and rewards where it has such heads; without gradients."""
        ...


class Reference(ForwardPass, Protocol):
    """A frozen policy, which can be synced with the trained one."""

    def sync(self, share: float) -> None:
        """ref = share * policy + (1 - share) * ref, by the current weights of the policy it was made from."""
        ...

    def save(self, folder: Path) -> None:
        """Writes its weights."""
        ...

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote."""
        ...


class Policy(ForwardPass, Protocol):
    """A training back end. `version` counts its updates; `description` is a line for a person about the layout of its model."""

    version: int
    description: str
    tokenizer: PreTrainedTokenizerBase

    @property
    def context(self) -> int:
        """How many tokens the model holds, prompt and response together."""
        ...

    @property
    def rewards(self) -> bool:
        """True for a reward model, whose `forward` gives reward_R; False for a language model, which can be sampled from."""
        ...

    @property
    def size(self) -> ModelSize: ...

    @property
    def facts(self) -> dict[str, Any]:
        """Settings chosen on this machine, such as the layout, as JSON: a resumed run uses the same."""
        ...

    def forward_backward(self, forest: Forest, loss: LossFunction) -> Metrics:
        """Adds the gradients of `loss` on one micro-batch, and returns its metrics. The loss is divided by the step's denominators, so
        micro-batches add up."""
        ...

    def optim_step(self, lr: float) -> Metrics:
        """Clips, steps at learning rate `lr`, clears the gradients and makes `version` one higher."""
        ...

    def zero_grad(self) -> None:
        """Drops accumulated gradients."""
        ...

    def snapshot(self, copy: bool = False) -> Sampler:
        """A sampler at this version. It shares the weights, and raises RuntimeError once the policy has been updated; with `copy` it has
        weights of its own."""
        ...

    def reference(self, syncable: bool = False) -> Reference:
        """The policy as it is now, frozen; with `syncable` it can be synced later."""
        ...

    def rescale(self, gain: float, bias: float) -> None:
        """Reward models only: reward = gain * reward + bias from now on."""
        ...

    def export(self, folder: Path) -> None:
        """Writes the model alone, in Hugging Face layout."""
        ...

    def save(self, folder: Path) -> None:
        """Writes a checkpoint: the export, and all that training needs to resume bit-equal."""
        ...

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote."""
        ...


class Algorithm(Protocol):
    """A frozen dataclass: hyperparameters and pure functions. An algorithm that learns from the responses of the data instead of samples
    has the class attribute `supervised = True`. One with streams or state of its own also implements `Crediting` or `Stateful`.

    `needs` is a property or an unannotated class attribute; an annotation would make it a dataclass field.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What the loop provides. As streams on the forest before `credit`, from forward passes without gradient:

            old           old_logp_M: log-probs under the policy that sampled the responses
            reference     ref_logp_M
            value         old_value_M; the model gets a critic, and the loss reads out.value_M
            mismatched    other_logp_M and other_ref_logp_M: each group's responses under the prompt of the group before it (KTO)

        Without a stream: `reward`, the model is a reward model and the loss reads out.reward_R; `tiers`, sampled responses are ranked by
        their rewards, so that a group has pairs.
        """
        ...

    def keep(self, group: Group) -> bool:
        """False where the group has no learning signal: it is skipped, and still counts in the denominators."""
        ...

    def loss(self, out: Outputs, forest: Forest) -> Loss:
        """Sums over M, R or pairs, divided by the step's denominators, so that micro-batches add up."""
        ...


@runtime_checkable
class Crediting(Protocol):
    """An algorithm that computes streams of its own, such as advantages."""

    def credit(self, groups: Sequence[Group], forest: Forest, state: State) -> dict[str, Tensor]:
        """Streams such as advantage_M, from all kept groups of a step, before the split into micro-batches."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An algorithm with state, such as an adaptive coefficient. The state is JSON data; the loop passes it and checkpoints contain it."""

    def start(self) -> State:
        """The state before the first step."""
        ...

    def advance(self, state: State, metrics: Metrics) -> State:
        """The state after the step."""
        ...


def first_state(algorithm: Algorithm) -> State:
    """The state before the first step; {} for a stateless algorithm."""
    return algorithm.start() if isinstance(algorithm, Stateful) else {}


def next_state(algorithm: Algorithm, state: State, metrics: Metrics) -> State:
    """The state after a step with these metrics; unchanged for a stateless algorithm."""
    return algorithm.advance(state, metrics) if isinstance(algorithm, Stateful) else state


def credited(algorithm: Algorithm, groups: Sequence[Group], forest: Forest, state: State) -> Forest:
    """The forest with the algorithm's credit as streams, where it is `Crediting`. `groups` are those of the forest, in their order."""
    return forest.with_streams(algorithm.credit(groups, forest, state)) if isinstance(algorithm, Crediting) else forest


class Task(Protocol):
    """A source of rows with random access, so that (seed, step) determines the rows of a step and resuming needs no state."""

    rewards: ClassVar[tuple[str, ...]]  # paths of the default rewards

    def num_rows(self, split: Split) -> int | None:
        """The number of rows; None where they are generated without end."""
        ...

    def row(self, split: Split, index: int) -> Example:
        """Deterministic in (split, index). `test` and `train` share no row."""
        ...


class Reward(Protocol):
    """The reward of one response: a number, several numbers by name, or None where it does not apply."""

    def __call__(self, prompt: Prompt, response: str, **columns: Any) -> float | dict[str, float] | None: ...
