"""One-line bugs that an engineer could make, and the tests that must notice each: what `plant.py` plants.

A bug is the file under src/ikusei, the exact old text, which stands there once, the text in its place, and the arguments for pytest that
name the tests: a file, and often `-k`. Keep them small, for a bug that is not noticed costs all of their time. Choose bugs by reading the
code and not the tests, and keep those that survive: then the test is missing. A change that changes no behaviour is no bug.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    name: str
    file: str
    old: str
    new: str
    tests: str  # as on pytest's command line, from the repository's root
    breaks: str

    @property
    def room(self) -> str:
        return self.file.partition("/")[0]

    @property
    def selection(self) -> tuple[str, ...]:
        return tuple(shlex.split(self.tests))


LOOPS = "tests/test_loops.py tests/test_loop_wiring.py tests/test_evaluate.py"
BACKENDS = "tests/test_adapter.py tests/test_optimizer.py"
GUARD = "tests/test_watch.py tests/test_reward_workers.py tests/laws/test_law_09_rewards_cannot_hurt.py"
TEXT = "tests/test_text.py tests/test_conversations.py"


BUGS = (
    # ---------------------------------------------------------------------------------------------------------------- loops
    Bug(
        "collect-threshold-last", "loops/collect.py", "return next(above, None), next(below, None)",
        "return next(above, None), next(reversed([*below]), None)",
        "tests/test_pairs.py -k threshold", "the rejected answer is the last below the threshold, not the first",
    ),
    Bug(
        "collect-last-step", "loops/collect.py", "min(self.settings.prompts_per_step, self.settings.num_prompts - begin)",
        "self.settings.prompts_per_step", "tests/test_loops.py -k last_step", "the last step asks more prompts than were wanted",
    ),
    Bug(
        "data-weight", "loops/data.py", "row.tiers, row.margin, row.weight)", "row.tiers, row.margin)",
        "tests/test_loops.py -k margin_weight", "a row's weight never reaches the loss",
    ),
    Bug(
        "evaluate-greedy-flag", "loops/evaluate.py", "rows_of(group, [value], settings, greedy=True)", "rows_of(group, [value], settings)",
        "tests/test_evaluate.py -k greedy", "greedy answers are stored as samples and counted with them",
    ),
    Bug(
        "shots-own-question", "loops/few_shot.py", "if row.prompt != question:", "if row.prompt is not question:",
        "tests/test_loops.py -k question_itself", "the question that is asked may be among its own examples",
    ),
    Bug(
        "filter-ties", "loops/filtering.py", "theirs is not None and mine < theirs", "theirs is not None and mine <= theirs",
        "tests/test_loops.py -k earns_as_much", "a pair stays although the policy's answer earns as much",
    ),
    Bug(
        "filter-epoch", "loops/filtering.py", '(step - state["began"] + 1) * count', '(step - state["began"]) * count',
        "tests/test_loops.py -k filter", "an epoch ends a step late, with fewer rows than a step takes",
    ),
    Bug(
        "online-importance", "loops/online.py", "(old_M - sampled_M).exp()", "(sampled_M - old_M).exp()",
        "tests/test_algorithms.py -k stale_samples", "importance weights are turned round",
    ),
    Bug(
        "online-gap", "loops/online.py", "[with_gap(losses[0]), *losses[1:]]", "[with_gap(each) for each in losses]",
        "tests/test_loop_wiring.py -k fresh_samples", "the sampler's gap is measured after the weights have moved",
    ),
    Bug(
        "online-max-failures", "loops/online.py", "too_many_failures(groups, self.settings.max_failures)", "too_many_failures(groups)",
        "tests/test_loop_wiring.py -k more_rewards_fail", "train.max_failures is ignored",
    ),
    Bug(
        "recall-last-batch", "loops/precompute.py", "computed |= _logps(", "computed = _logps(",
        "tests/test_loops.py -k reference_said", "of more than 256 rows only the last batch is kept",
    ),
    Bug(
        "gap-advice", "loops/preference_gap.py", "gap.low > FAR", "gap.value > FAR",
        "tests/test_pairs.py -k advice_asks", "advice is given where the interval allows no such claim",
    ),
    Bug(
        "held-out-totals", "loops/held_out.py", "replace(count([group]), laid", "replace(count(kept), laid",
        "tests/test_loops.py -k held_out", "each row's loss is divided by the tokens of all rows",
    ),
    Bug(
        "supervised-mean-length", "loops/supervised.py", "count(groups).tokens / count(groups).responses",
        "count(groups).tokens / len(groups)", "tests/test_loop_wiring.py -k totals_are", "mean length by rows, not by responses",
    ),
    # ---------------------------------------------------------------------------------------------------------------- backends
    Bug(
        "norm-infinite", "backends/local.py", 'if norm != norm or norm == float("inf"):', "if norm != norm:",
        "tests/test_algorithms.py -k overflowed", "a gradient that overflowed is stepped with",
    ),
    Bug(
        "empty-step-moments", "backends/local.py", "if p.grad is None and p.requires_grad:", "if p.grad is None and not p.requires_grad:",
        "tests/test_optimizer.py -k teaches_nothing", "after a step that teaches nothing the moments do not decay",
    ),
    Bug(
        "snapshot-stale", "backends/local.py", "(lambda: version) if copy else (lambda: self.version)", "lambda: version",
        "tests/laws/test_law_04_snapshot.py", "a shared snapshot goes on sampling after an update",
    ),
    Bug(
        "reference-late", "backends/local.py", "self.settings.lora is not None and self.version == 0 and not syncable",
        "self.settings.lora is not None and not syncable", "tests/test_adapter.py -k reference",
        "the reference of a policy whose adapters have learned is the model without them",
    ),
    Bug(
        "export-pad", "backends/export.py", "pad_token_id=tokenizer.pad_token_id", "pad_token_id=tokenizer.eos_token_id",
        "tests/laws/test_law_12_export.py -k end_token", "the exported model pads with its end token",
    ),
    Bug(
        "offloaded-load", "backends/optimizer.py", "copy.copy_(own)\n        self.inner", "own.copy_(copy)\n        self.inner",
        "tests/test_adapter.py -k elsewhere", "on resuming, the weights become those that the run began with",
    ),
    Bug(
        "size-frozen", "backends/local.py", "sum(count for count, _ in numbers) - trained", "sum(count for count, _ in numbers)",
        "tests/test_adapter.py -k counted_apart", "frozen weights are counted with the trained ones",
    ),
    Bug(
        "restore-bias", "backends/export.py", "model.config.reward_bias = saved.config.reward_bias", "model.config.reward_bias = 0.0",
        "tests/test_judges.py -k scale", "a reward model that is resumed forgets its bias",
    ),
    # ---------------------------------------------------------------------------------------------------------------- samplers
    Bug(
        "top-p-boundary", "samplers/draw.py", "sorted_p.cumsum(-1) - sorted_p  #", "sorted_p.cumsum(-1)  #",
        "tests/test_draw.py", "the word that crosses top-p is cut",
    ),
    Bug(
        "asked-twice", "samplers/decoding.py", "seen[prompt.id] * num_responses", "seen[prompt.id]",
        "tests/laws/test_law_05_seed.py -k asked_twice", "a prompt that is asked again gets answers that it has had",
    ),
    Bug(
        "pieces-stop", "samplers/continuation.py", "stop=(*self.sampling.stop, *stop))", "stop=stop)",
        "tests/test_thinking.py -k stop_string", "the sampling's own stop strings are lost where an answer is written in pieces",
    ),
    Bug(
        "window", "samplers/kv_cache.py", "max(0, now + 1 - form.window)", "max(0, now - form.window)",
        "tests/laws/test_law_03_parity.py -k every_architecture", "a sliding window sees a token too many",
    ),
    # ---------------------------------------------------------------------------------------------------------------- evaluation
    Bug(
        "judge-order", "evaluation/judges.py", "value if on_top else 1 - value, on_top", "value, on_top",
        "tests/test_winning.py -k both_orders", "what the second order says counts for the wrong model",
    ),
    Bug(
        "frontier-ties", "evaluation/scaling.py", "(points[i].tokens, -points[i].value)", "(points[i].tokens, points[i].value)",
        "tests/test_scaling.py -k frontier", "of points of equal cost all stand on the frontier",
    ),
    Bug(
        "scaling-tokens", "evaluation/scaling.py", "fmean(result.tokens / settings.most for result in pool)",
        "fmean(result.tokens for result in pool)", "tests/test_scaling.py -k every_method", "one answer is told to cost as much as all",
    ),
    # ---------------------------------------------------------------------------------------------------------------- guard
    Bug(
        "gold-disagrees", "guard/monitors.py", "fmean(values) + 3 * stdev(values)", "fmean(values) - 3 * stdev(values)",
        "tests/test_watch.py -k disagrees", "gold disagrees: an alarm where it may as well be chance",
    ),
    Bug(
        "length-shrinks", "guard/monitors.py", " or found[1].now < found[1].before / 1.5", "",
        "tests/test_watch.py -k become_short", "answers that become ever shorter raise no alarm",
    ),
    Bug(
        "terms-gates", "guard/outcomes.py", "Term(spec.weight, gates * value)", "Term(spec.weight, value)",
        "tests/test_reward_workers.py -k terms_of", "credit by reward forgets the gates",
    ),
    Bug(
        "hang-costs-all", "guard/process.py", "len(texts) - len(results) if self._batched[call.which] else 1", "len(texts) - len(results)",
        "tests/laws/test_law_09_rewards_cannot_hurt.py -k 'costs_its_own or keep_their_place'",
        "a call that hangs costs every text after it",
    ),
    Bug(
        "sandbox-environment", "guard/sandbox.py", "os.environ.clear()", "os.environ.copy()",
        "tests/test_sandbox.py -k inside_there_is_nothing", "what the model wrote reads the trainer's environment",
    ),
    Bug(
        "fall-overlaps", "guard/trend.py", "range(len(values) - 2 * width + 1)", "range(len(values) - width + 1)",
        "tests/test_watch.py -k fall_is", "a fall is measured from a window that overlaps the last",
    ),
    Bug(
        "restore-alarms", "guard/watch.py", "self.alarms += alarms", "self.alarms = [*self.alarms]",
        "tests/test_watch.py -k goes_on", "after a resume every alarm is told again",
    ),
    Bug(
        "batched-seconds", "guard/worker_main.py", "(time.perf_counter() - start) / len(texts)", "time.perf_counter() - start",
        "tests/test_reward_workers.py -k seconds_of", "the seconds of a batched call are counted for each text",
    ),
    Bug(
        "protocol-finite", "guard/worker_protocol.py", "(type(value) in (int, float) and math.isfinite(value))",
        "type(value) in (int, float)", "tests/test_sandbox.py -k no_answer", "a sandboxed reward may say NaN",
    ),
    # ---------------------------------------------------------------------------------------------------------------- run
    Bug(
        "crossing-line", "run/comparison.py", "* gain / (gain - then)", "* then / (then - gain)",
        "tests/test_comparison.py -k curves", "the crossing lies at the wrong end of its interval",
    ),
    Bug(
        "cut-evaluations", "run/folder.py", 'int(folder.name.rpartition("@")[2]) > step', 'int(folder.name.rpartition("@")[2]) >= step',
        "tests/test_run_folder.py -k cut_after", "resuming forgets the evaluation of the checkpoint itself",
    ),
    Bug(
        "seconds-sign", "run/folder.py", "time.monotonic() - before)", "time.monotonic() + before)",
        "tests/test_run_folder.py -k seconds", "the seconds of the parts before a resume are taken off",
    ),
    Bug(
        "clear-inside", "run/files.py", '[*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]', '[*folder.glob(".*.tmp")]',
        "tests/test_run_folder.py -k half_written", "what a kill left half written inside eval/ or responses/ stays for ever",
    ),
    Bug(
        "time-left", "run/display.py", "(end - start) / (last - first) *", "(end - start) / last *",
        "tests/test_display.py -k time_left", "the time left is too short once many steps are done",
    ),
    Bug(
        "advantage-place", "run/tables.py", "advantages.get((g, r))", "advantages.get((r, g))",
        "tests/test_run_folder.py -k every_response", "advantages stand beside the wrong answers",
    ),
    Bug(
        "vote-order", "run/win_rate.py", "won if first else 1 - won, first", "won, first",
        "tests/test_winning.py -k votes", "a vote on the models in the other order counts for the wrong one",
    ),
    # ---------------------------------------------------------------------------------------------------------------- pipeline, recipe
    Bug(
        "best-of-equals", "pipeline/gold_watch.py", "(self._gold(step), -step)", "(self._gold(step), step)",
        "tests/laws/test_law_06_watched.py -k equal_golds", "of checkpoints with equal gold the last is gone back to",
    ),
    Bug(
        "restore-counters", "pipeline/training_run.py", 'saved["tokens_sampled"], saved["tokens_trained"]',
        'saved["tokens_trained"], saved["tokens_sampled"]', "tests/laws/test_law_06_every_method.py -k 'bit_equal and kto and SIGKILL'",
        "after a resume the counted tokens are exchanged",
    ),
    Bug(
        "collected-tokens", "pipeline/collection_run.py", "num_target_tokens(step.written)", "num_target_tokens(step.groups)",
        "tests/test_pairs.py -k people_judge", "answers that were written and not judged are not counted",
    ),
    Bug(
        "stages-after", "pipeline/staged.py", "for each in reversed(done) if", "for each in done if",
        "tests/test_roads.py -k gained_from", "the whole's measurement after is that of the first stage",
    ),
    Bug(
        "mass-weights", "pipeline/probability_mass.py", "math.log(len(stratum) / len(part))", "math.log(len(part) / len(stratum))",
        "tests/test_lens.py -k mass", "members that stand for others weigh too little",
    ),
    Bug(
        "path-order", "recipe/reader.py", "for place in (folder / path, path)", "for place in (path, folder / path)",
        "tests/test_recipe.py -k paths_start", "a file of the working directory wins over the recipe's own",
    ),
    Bug(
        "kto-alone", "recipe/validate.py", "recipe.train.examples_per_step >= 2", "recipe.train.examples_per_step >= 1",
        "tests/test_roads.py -k 'told_before and kto'", "KTO with one row a step is told only in the first step",
    ),
    # ---------------------------------------------------------------------------------------------------------------- text
    Bug(
        "answer-first", "text/answer.py", 'before.rpartition("<answer>")', 'before.partition("<answer>")',
        "tests/test_rewards.py -k thought", "of two answers in tags what stands from the first on is read",
    ),
    Bug(
        "border", "text/conversation.py", "whole[size:] if whole[:size] == tokens_before else encode(tokenizer, text)", "whole[size:]",
        "tests/test_text.py -k border", "where a token spans the border, letters of the answer are lost",
    ),
    Bug(
        "begin-twice", "text/chat.py", "if isinstance(begin, int) and tokens[:1] != (begin,) else", "if isinstance(begin, int) else",
        "tests/test_text.py -k 'begin'", "a text that brings its begin token gets a second one",
    ),
    Bug(
        "turn-end", "text/chat.py", "if opens and opening.endswith(opens):", "if opens and opens in opening:",
        "tests/test_text.py -k turn_ends", "an answer after plain text ends as a turn where the text quotes one",
    ),
    Bug(
        "rarest-characters", "text/train_tokenizer.py", "(-counts[character], character)", "(counts[character], character)",
        "tests/test_text.py -k frequent", "the rarest characters get the tokens",
    ),
    # ---------------------------------------------------------------------------------------------------------------- eval_metrics, report
    Bug(
        "agreement-sign", "eval_metrics/rows.py", "rankdata([-tier for tier in tiers])", "rankdata(list(tiers))",
        "tests/test_loops.py -k reward_model", "agreement with the given order has the wrong sign",
    ),
    Bug(
        "fewest-before", "report/examples.py", "min(ids, key=lambda i: share_right(new[i]))", "min(ids, key=lambda i: share_right(old[i]))",
        "tests/test_report.py -k chosen_by_the_rule", "the page shows the question that was hardest before, not after",
    ),
    Bug(
        "kl-of-answer", "report/charts.py", "by_token * length", "by_token / length",
        "tests/test_report.py -k root_of_kl", "KL of an answer from that of a token: divided by its length",
    ),
    # ================================================================================================================ second batch
    # With whole test files, as someone would run them who works on that room.
    # ---------------------------------------------------------------------------------------------------------------- loops
    Bug(
        "shots-form", "loops/few_shot.py", '"auto" if form is None else "none")', '"auto")',
        LOOPS, "a form is put into the chat template, where there is one",
    ),
    Bug(
        "cut-beside-prompt", "loops/data.py", "room = max(self.cut_at - len(prompt.tokens), 0)", "room = self.cut_at",
        LOOPS, "a response is cut to cut_at tokens, and not prompt and response together",
    ),
    Bug(
        "greedy-failures", "loops/evaluate.py", "too_many_failures(sampled) or too_many_failures(greedy)", "too_many_failures(sampled)",
        LOOPS, "an evaluation goes on although the reward failed on most greedy answers",
    ),
    Bug(
        "gold-in-part", "loops/metrics.py", "if known and len(known) == len(values) else None", "if known else None",
        LOOPS, "where one gold reward failed an answer is judged by the others alone",
    ),
    Bug(
        "placed-failed", "loops/online.py", "if kept and response.total is not None", "if kept",
        LOOPS, "advantages get a place beside answers that were not trained on, since their reward failed",
    ),
    Bug(
        "supervised-schedule", "loops/supervised.py", "self.settings.schedule().at(number, self.settings.steps)",
        "self.settings.schedule().at(number + 1, self.settings.steps)", LOOPS, "the learning rate is that of the next step",
    ),
    Bug(
        "replay-same", "loops/replay.py", "self.rows.examples(step, self.settings.examples)",
        "self.rows.examples(0, self.settings.examples)", LOOPS, "every step replays the same rows",
    ),
    # ---------------------------------------------------------------------------------------------------------------- backends
    Bug(
        "reward-head-frozen", "backends/local.py", "self.causal.head.requires_grad_(True)", "self.causal.head.requires_grad_(False)",
        BACKENDS, "with adapters the new head of a reward model is not trained",
    ),
    Bug(
        "vectors-stand", "backends/local.py", "for group in self.optimizer.param_groups:", "for group in self.optimizer.param_groups[:1]:",
        BACKENDS, "norms and biases keep the learning rate 0",
    ),
    Bug(
        "reference-saved", "backends/reference.py", "torch.save(adapter_weights(self.causal.model)",
        "torch.save(adapter_weights(self.source.model)", BACKENDS, "what is saved as the reference's adapters are the policy's",
    ),
    # ---------------------------------------------------------------------------------------------------------------- samplers
    Bug(
        "stop-reach", "samplers/decoding.py", "max(len(stop.encode()) for stop", "max(len(stop) for stop",
        "tests/test_draw.py", "a stop string of several bytes a character is not found where tokens are bytes",
    ),
    Bug(
        "min-p-absolute", "samplers/draw.py", "sampling.min_p * p.max(-1, keepdim=True).values", "sampling.min_p",
        "tests/test_draw.py", "min-p is a share of 1, and not of the largest probability",
    ),
    Bug(
        "shared-window", "samplers/kv_cache.py", "not self.windowed and prompt.length >= SHARED", "prompt.length >= SHARED",
        "tests/laws/test_law_03_parity.py", "a long prompt is shared also in models with a sliding window, which then sees all of it",
    ),
    Bug(
        "insert-full", "samplers/continuation.py", "len(given) >= self.room(partial)", "len(given) > self.room(partial)",
        "tests/test_thinking.py", "given text may take the last token of the answer's room",
    ),
    # ---------------------------------------------------------------------------------------------------------------- guard
    Bug(
        "better-for-sure", "guard/monitors.py", "each.by > 2 * each.error for each", "each.rose for each",
        GUARD, "alarms that wait for a run that learns nothing come in one that probably learns",
    ),
    Bug(
        "error-of-one", "guard/trend.py", "noise * math.sqrt(2 / width)", "noise * math.sqrt(1 / width)",
        GUARD, "the error of a difference is that of one mean",
    ),
    Bug(
        "sum-overflows", "guard/outcomes.py", "whole = bool(terms) and math.isfinite(total)", "whole = bool(terms)",
        GUARD, "finite rewards whose sum overflows give an infinite total",
    ),
    Bug(
        "dead-between-calls", "guard/process.py", "if self._process is None or self._process.poll() is not None:",
        "if self._process is None:", GUARD, "a process that ended between two calls costs the next text",
    ),
    # ---------------------------------------------------------------------------------------------------------------- run
    Bug(
        "old-samples", "run/comparison.py", 'if row.get("total", 0.0) is None:', 'if row.get("total") is None:',
        "tests/test_comparison.py", "samples of older versions, which have no total, are left out",
    ),
    Bug(
        "similar-to-longer", "run/win_rate.py", "max(each.lengths) <= SIMILAR * min(each.lengths)",
        "each.lengths[0] <= SIMILAR * each.lengths[1]", "tests/test_winning.py", "a short answer counts as similar to a long one",
    ),
    Bug(
        "seconds-of-metrics", "run/folder.py", 'before = max((row["seconds"] for log', 'before = min((row["seconds"] for log',
        "tests/test_run_folder.py", "after a resume the time since the earlier of the two last lines is lost",
    ),
    # ---------------------------------------------------------------------------------------------------------------- pipeline, recipe
    Bug(
        "gold-samples", "pipeline/gold_watch.py", "num_samples=self.recipe.watch.gold_samples, shots=()", "shots=()",
        "tests/laws/test_law_06_watched.py", "watch.gold_samples is ignored",
    ),
    Bug(
        "mass-error", "pipeline/probability_mass.py", "for log in logs]) / math.sqrt(len(logs))", "for log in logs])",
        "tests/test_lens.py", "the error of a mean is the spread of its values",
    ),
    Bug(
        "rounded-twice", "recipe/stage_checks.py", "each.policy.lora and each.policy.lora.bits for each in (before, recipe)",
        "each.policy.lora and each.policy.lora.bits for each in (recipe,)", "tests/test_adapter.py",
        "4 bits are refused after any other stage",
    ),
    Bug(
        "collect-every-row", "recipe/rows.py", "rows is not None and rows < num_prompts", "rows is not None and rows <= num_prompts",
        "tests/test_pairs.py", "a collection that asks every row once is refused",
    ),
    # ---------------------------------------------------------------------------------------------------------------- text
    Bug(
        "id-of-question", "text/chat.py", "content_id(prompt, example.responses, sorted(", "content_id(prompt, (), sorted(",
        TEXT, "rows with one question and different answers have one id, and share cached log-probs",
    ),
    Bug(
        "first-end", "text/conversation.py", "text = text[: text.rfind(end) + len(end)]", "text = text[: text.find(end) + len(end)]",
        TEXT, "a conversation ends after its first turn",
    ),
    # ---------------------------------------------------------------------------------------------------------------- evaluation
    Bug(
        "judge-of-recipe", "evaluation/judges.py", "return gold or rewards", "return rewards",
        "tests/test_winning.py", "of a recipe with gold rewards those that are trained on judge too",
    ),
    Bug(
        "commonest-next", "eval_metrics/answers.py", "float(place.get(answer, k) < k)", "float(place.get(answer, k + 1) <= k)",
        "tests/test_evaluate.py tests/test_figures.py", "of the k commonest answers there are k + 1",
    ),
    Bug(
        "ratio-of-each", "eval_metrics/rows.py", "/ texts.bytes_R.mean() + ratio", "/ texts.bytes_R + ratio",
        "tests/test_loops.py tests/test_figures.py tests/test_score.py", "each response weighs alike in the interval, however short",
    ),
)  # fmt: skip
