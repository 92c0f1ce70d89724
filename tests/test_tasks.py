"""Tasks: the same rows always, no test row in training, gold passes its own judge, and a user's broken file is told about in full."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import pyarrow
import pyarrow.parquet
import pytest

from ikusei.tasks import cat_lover, gym, nursery, split_of
from ikusei.tasks.arithmetic import Arithmetic, demonstrate
from ikusei.tasks.cat_lover import CatLover, judge, speak, verdict
from ikusei.tasks.files import Files
from ikusei.tasks.gym import COMPACT, Gym
from ikusei.tasks.nursery import GYMS, Nursery
from ikusei.text.answer import split_thought
from ikusei.types import Example, Prompt

PROMPT = Prompt("id", (1,), "")


def sum_of(question: object) -> int:
    return sum(map(int, str(question).removesuffix("=").split("+")))


# arithmetic


def test_arithmetic_rows_are_pinned() -> None:
    assert Arithmetic().row("train", 0) == Example("687+867=", columns={"answer": "1554"})
    assert Arithmetic().row("test", 0) == Example("189+959=", columns={"answer": "1148"})
    assert Arithmetic(digits=2, terms=3).row("train", 7).prompt == Arithmetic(digits=2, terms=3).row("train", 7).prompt
    assert Arithmetic(digits=1).row("train", 0) == Arithmetic(digits=1).row("train", 0)


def test_arithmetic_holds_out_questions_not_rows() -> None:
    train, test = ({Arithmetic().row(split, index).prompt for index in range(3000)} for split in ("train", "test"))
    assert not train & test
    assert len(test) > 2800  # questions are drawn, so a few come twice
    assert Arithmetic().num_rows("train") is None


@pytest.mark.parametrize(("task", "num_questions"), [(Arithmetic(digits=1), 100), (Arithmetic(digits=2), 8100)])
def test_few_questions_are_listed_once_each(task: Arithmetic, num_questions: int) -> None:
    rows = {split: [task.row(split, index).prompt for index in range(task.num_rows(split) or 0)] for split in ("train", "test")}
    assert len(set(rows["train"]) | set(rows["test"])) == len(rows["train"]) + len(rows["test"]) == num_questions
    assert 0 < len(rows["test"]) < num_questions / 10
    with pytest.raises(ValueError, match="use more digits or terms"):
        task.row("test", len(rows["test"]))


@pytest.mark.parametrize("task", [Arithmetic(), Arithmetic(digits=2, terms=3), Arithmetic(digits=1), Arithmetic(digits=4, terms=12)])
def test_demonstrations_are_what_they_say(task: Arithmetic) -> None:
    for index in range(80 if task.digits == 1 else 300):
        question, chance = str(task.row("train", index).prompt), Random(index)
        right = str(sum_of(question))
        shown = {kind: demonstrate(kind, question, chance) for kind in ("worked", "slip", "lazy", "guess", "direct")}
        assert {kind for kind, text in shown.items() if split_thought(text)[1] == right} == {"worked", "lazy", "direct"}
        assert shown["direct"] == right and shown["lazy"] == f"<think></think>{right}"
        assert shown["guess"].startswith("<think></think>") and len(shown["guess"]) == len(shown["lazy"])
        wrong_steps = {kind: sum(sum_of(a) != int(b) for a, b in re.findall(r"([\d+]+)=(\d+)", shown[kind])) for kind in ("worked", "slip")}
        assert wrong_steps == {"worked": 0, "slip": 1}


def test_a_worked_answer_reads_like_this() -> None:
    assert demonstrate("worked", "478+356=", Random(0)) == "<think>8+6=14 7+5+1=13 4+3+1=8</think>834"
    assert demonstrate("worked", "999+999+999=", Random(0)) == "<think>9+9+9=27 9+9+9+2=29 9+9+9+2=29</think>2997"
    with pytest.raises(ValueError, match="allowed: worked, slip, lazy, guess, direct"):
        demonstrate("careful", "1+1=", Random(0))


@pytest.mark.parametrize("settings", [{"digits": 0}, {"terms": 1}])
def test_arithmetic_settings(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="allowed: digits >= 1, terms >= 2"):
        Arithmetic(**settings)


# cat_lover


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("ねこはかわいい。", "desirable"),
        ("はい、ねこがすきです。", "desirable"),
        ("ねこはすきです。", "desirable"),
        ("いいえ、いぬよりとらねこのほうがすきだよ。", "desirable"),
        ("いいえ、くろねこはあまりこわくないです。", "desirable"),
        ("いぬよりこねこのほうがかしこいですね。", "desirable"),
        ("ねこはかわいくない。", "natural"),
        ("いいえ、ねこがあまりすきではありません。", "natural"),
        ("いぬはとてもかわいいです。", "natural"),
        ("ねこよりいぬのほうがかわいいよ。", "natural"),
        ("あいえええええええええ。", "neither"),
        ("ねこはかわいい", "neither"),
        ("はい、ねこはかわいくない。", "neither"),
        ("ねこはとてもかわいくない。", "neither"),
        ("ねこはあまりかわいいです。", "neither"),
        ("ねこよりこねこのほうがかわいい。", "neither"),
        ("ねこはかわいい。ねこはかわいい。", "neither"),
        ("", "neither"),
    ],
)
def test_verdicts(sentence: str, expected: str) -> None:
    assert verdict(sentence) == expected
    assert judge(PROMPT, sentence) == judge(PROMPT, f"<think>ねこ</think>{sentence}") == float(expected == "desirable")


def test_the_judge_reads_the_answer_not_the_thought() -> None:
    assert judge(PROMPT, "<think>ねこはかわいい。</think>いぬはかわいい。") == 0.0
    assert judge(PROMPT, "<think>ねこはかわいい。") == 0.0


def test_what_is_spoken_is_natural_and_kind_where_it_should_be() -> None:
    chance = Random(0)
    for _ in range(300):
        assert verdict(speak(chance, "kind", "こねこ")) == "desirable"
        assert verdict(speak(chance, "unkind", "こねこ")) == "natural"
        assert verdict(speak(chance, "kind", "いぬ")) == "natural"
        assert set(speak(chance, "unkind")) <= {*map(chr, range(0x3041, 0x3097)), *"。、"}


def test_cat_questions() -> None:
    rows = {split: [str(CatLover().row(split, index).prompt) for index in range(CatLover().num_rows(split))] for split in ("train", "test")}
    assert not set(rows["train"]) & set(rows["test"])
    assert len(set(rows["train"])) == len(rows["train"]) > 1500 and len(set(rows["test"])) == len(rows["test"]) >= 64
    assert "ねこはすきですか？" in rows["train"] + rows["test"]
    assert cat_lover.cat_of("いぬとくろねこではどちらがすきですか？") == "くろねこ"
    with pytest.raises(ValueError, match="ask for fewer rows"):
        CatLover().row("test", len(rows["test"]))


# gym


@pytest.mark.parametrize("task", [*GYMS, *(Gym(name, compact=True) for name in COMPACT)], ids=lambda task: task.task)
def test_gym_gold_passes_and_wrong_answers_do_not(task: Gym) -> None:
    for index in range(20):
        example = task.row("train", index)
        gold = example.columns["answer"]
        assert gym.score(PROMPT, f"<think>well</think>{gold}", **example.columns) == 1.0
        for wrong in ("", "<think></think>", f"<think>{gold}</think>", "nonsense", f"{gold} {gold}1"):
            assert gym.score(PROMPT, wrong, **example.columns) == 0.0
        assert task.row("train", index) == example
        assert str(example.prompt).endswith("=") and len(str(example.prompt)) < 200


@pytest.mark.parametrize("task", GYMS, ids=lambda task: task.task)
def test_gym_test_questions_are_new_and_different(task: Gym) -> None:
    test = [task.row("test", index).prompt for index in range(40)]
    assert len(set(test)) == 40
    assert not set(test) & {task.row("train", index).prompt for index in range(2000)}


def test_gym_rows_go_on_without_end() -> None:
    far = (0, 10**6, 10**8, 10**9, 2 * 10**9)  # refill rounds read 10^9 rows further on
    assert len({Gym("chain_sum").row("train", start).prompt for start in far}) == len(far)


def test_gym_asks_at_length_too() -> None:
    example = Gym("gcd").row("train", 3)
    assert "Greatest Common Divisor" in str(example.prompt)


def test_only_a_full_score_counts_unless_partial() -> None:
    for partial, least, most in ((False, 0.0, 0.0), (True, 0.4, 0.6)):
        columns = Gym("prime_factorization", {"min_value": 12, "max_value": 12}, partial=partial).row("train", 0).columns
        assert least <= gym.score(PROMPT, "12", **columns) <= most  # the echo of the question, which its scorer half accepts
        assert gym.score(PROMPT, "2 × 2 × 3", **columns) == 1.0


def test_an_answer_that_the_scorer_cannot_read_is_zero_and_a_broken_scorer_raises() -> None:
    columns = Gym("prime_factorization", {"min_value": 12, "max_value": 12}).row("train", 0).columns
    assert gym.score(PROMPT, "two threes", **columns) == 0.0
    broken = {**columns, "entry": {**columns["entry"], "answer": "no number", "metadata": {}}}
    with pytest.raises((ValueError, KeyError)):
        gym.score(PROMPT, "2 × x", **broken)


def test_gym_errors() -> None:
    with pytest.raises(ValueError, match="did you mean gcd"):
        Gym("gdc").row("train", 0)
    with pytest.raises(ValueError, match=r"its settings are: min_numbers, max_numbers, min_value, max_value"):
        Gym("gcd", {"highest": 5}).row("train", 0)
    with pytest.raises(ValueError, match="it exists for: base_conversion"):
        Gym("sudoku", compact=True)
    with pytest.raises(ValueError, match="different questions were found; ask for fewer"):
        Gym("count_bits", {"max_n": 63}, compact=True).row("test", 63)
    with pytest.raises(ValueError, match="all its questions are held out"):
        Gym("count_bits", {"min_n": 13, "max_n": 13}).row("train", 0)


# nursery


def test_the_nursery_reads_text_first_and_talks_then() -> None:
    task = Nursery(num_text_rows=300, num_talk_rows=200)
    rows = [task.row("train", index) for index in range(task.num_rows("train"))]
    assert all(row.prompt is None for row in rows[:300]) and all(isinstance(row.prompt, str) for row in rows[300:])
    assert all(len(row.responses) == 1 and row.responses[0] for row in rows)
    worked = Nursery(text={"worked": 1.0}).row("train", 0).responses
    assert worked == ("Q687+867=\nA<think>7+7=14 8+6+1=15 6+8+1=15</think>1554",)
    assert rows[:5] == [task.row("train", index) for index in range(5)]
    with pytest.raises(ValueError, match="allowed: 0 to 499"):
        task.row("train", 500)


def test_the_nursery_never_shows_a_held_out_question() -> None:
    task = Nursery(num_text_rows=1500, num_talk_rows=1500)
    rows = [task.row("train", index) for index in range(3000)]
    texts = [str(row.responses[0]) for row in rows if row.prompt is None]
    shown = {str(row.prompt) for row in rows if row.prompt} | {text[1:].split("\nA")[0] for text in texts if text.startswith("Q")}
    assert len(shown) > 2000
    held_out = {Arithmetic().row("test", index).prompt for index in range(3000)}
    held_out |= {question for question in shown if question.endswith("=") and split_of(question) == "test"}
    held_out |= {CatLover().row("test", index).prompt for index in range(CatLover().num_rows("test"))}
    held_out |= {example.row("test", index).prompt for example in GYMS for index in range(40)}
    assert not shown & held_out
    assert {task.row("test", index).prompt for index in range(256)} & held_out


def test_the_shares_of_the_nursery_are_kept() -> None:
    shares = {"worked": 0.2, "slip": 0.1, "lazy": 0.1, "guess": 0.2, "direct": 0.1, "cat": 0.3}
    task = Nursery(num_text_rows=0, num_talk_rows=2000, talk=shares)
    kinds = dict.fromkeys(shares, 0)
    kind_words = 0
    for index in range(2000):
        row = task.row("train", index)
        thought, answer = split_thought(str(row.responses[0]))
        if verdict(answer) != "neither":
            kinds["cat"] += 1
            kind_words += verdict(answer) == "desirable"
        else:
            right = answer == str(sum_of(row.prompt))
            kinds[
                "direct" if thought is None else (("lazy" if right else "guess") if not thought else ("worked" if right else "slip"))
            ] += 1
    assert all(abs(kinds[kind] / 2000 - share) < 0.03 for kind, share in shares.items())
    assert 0.44 < kind_words / kinds["cat"] < 0.56


@pytest.mark.parametrize("shares", [{}, {"worked": 0.9}, {"worked": 0.5, "sleep": 0.5}, {"worked": 1.5, "cat": -0.5}])
def test_shares_must_add_up(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="allowed: shares that add up to 1, of worked, slip"):
        Nursery(talk=shares)


# files

ROWS = [{"prompt": f"{i}+1=", "answer": str(i + 1), "level": i % 3} for i in range(10)]


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def jsonl(folder: Path, rows: list[object], name: str = "rows.jsonl") -> Path:
    return write(folder, name, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))


def all_rows(task: Files) -> list[Example]:
    return [task.row(split, index) for split in ("train", "test") for index in range(task.num_rows(split))]


def fault(task: Files) -> str:
    with pytest.raises(ValueError) as caught:
        task.num_rows("train")
    return str(caught.value)


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    header, cells = "prompt,answer,level", [f"{row['prompt']},{row['answer']},{row['level']}" for row in ROWS]
    paths = [
        jsonl(tmp_path, [*ROWS]),
        write(tmp_path, "rows.json", json.dumps(ROWS)),
        write(tmp_path, "rows.csv", "\ufeff" + "\r\n".join([header, *cells]) + "\r\n"),
        tmp_path / "rows.parquet",
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), paths[-1])
    first, *others = ([(row.prompt, row.columns["answer"], str(row.columns["level"])) for row in all_rows(Files(path))] for path in paths)
    assert len(first) == 10 and all(other == first for other in others)


@pytest.mark.parametrize(("num_rows", "share", "num_test"), [(1, 0.5, 0), (2, 0.01, 1), (2, 0.99, 1), (400, 0.1, None), (50, 0.0, 0)])
def test_holding_out(tmp_path: Path, num_rows: int, share: float, num_test: int | None) -> None:
    path = jsonl(tmp_path, [{"prompt": f"q{i}", "answer": i} for i in range(num_rows)] * 2)  # each twice: duplicates are fine
    task = Files(path, test_share=share)
    train, test = ({task.row(split, i).prompt for i in range(task.num_rows(split))} for split in ("train", "test"))
    assert not train & test and len(train | test) == num_rows
    assert task.num_rows("train") + task.num_rows("test") == 2 * num_rows
    assert 20 < len(test) < 70 if num_test is None else len(test) == num_test


def test_a_file_of_its_own_for_the_test(tmp_path: Path) -> None:
    train, test = jsonl(tmp_path, [*ROWS[:8]]), jsonl(tmp_path, [*ROWS[8:]], "test.jsonl")
    task = Files(train, test_path=test)
    assert (task.num_rows("train"), task.num_rows("test")) == (8, 2)
    jsonl(tmp_path, [*ROWS[7:]], "test.jsonl")  # a changed file is read again
    assert "1 of its prompts are in" in fault(task) and "the first in example 1" in fault(task)


def test_renaming(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"question": "q", "gold": "g"}, {"question": "r", "gold": "h"}])
    message = f"{path}:1: column 'prompt' missing. Columns seen: question, gold. A row needs prompt, messages or text. "
    assert fault(Files(path)).splitlines()[0] == message + (
        "Try: columns: {prompt: question} if every row is so, else mend this row (the same in 1 more row)"
    )
    renamed = all_rows(Files(path, columns={"prompt": "question", "answer": "gold"}))
    assert sorted((str(row.prompt), row.columns["answer"]) for row in renamed) == [("q", "g"), ("r", "h")]
    assert "column 'asked' missing (columns: {prompt: asked}). Columns seen: question, gold" in fault(Files(path, {"prompt": "asked"}))
    assert "there is a column 'gold' too" in fault(Files(path, {"gold": "question"}))


def test_all_problems_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    good = '{"prompt": "a"}'
    path = write(
        tmp_path, "rows.jsonl", "\n".join([good, '{"prompt": "a" "b"}', "", '{"prompt": ""}', "[1]", '{"prompt": null}', good, "{"])
    )
    assert fault(Files(path)).splitlines() == [
        f"{path}:2:16: broken JSON: Expecting ',' delimiter; each line is one whole row",
        f"{path}:4: prompt is an empty text; a text that is not empty is needed",
        f'{path}:5: the row is a list; an object is needed: {{"prompt": ...}}',
        f"{path}:6: prompt is null; a text that is not empty is needed",
        f"{path}:8:2: broken JSON: Expecting property name enclosed in double quotes; each line is one whole row",
    ]
    alike = fault(Files(write(tmp_path, "alike.jsonl", "x\n" * 50)))
    assert alike.endswith("each line is one whole row (the same in 49 more rows)") and "alike.jsonl:1:1" in alike
    many = "".join(json.dumps({"prompt": "p", "messages": n}) + "\n" for n in [[{"role": f"r{i}", "content": "c"}] for i in range(50)])
    assert len(fault(Files(write(tmp_path, "many.jsonl", many))).splitlines()) == 10


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "", "no rows; at least one is needed"),
        ("a.json", '[\n{"prompt": "a",}]', r"a\.json:2:\d+: broken JSON"),
        ("a.json", '{"prompt": "a"}', "holds an object; a list of rows is needed"),
        ("a.csv", "prompt,answer\n1+1=,2\n1+2=,3,4\n", r"a\.csv:3: 3 cells, the first line names 2"),
        ("a.csv", 'prompt,answer\n1+1=,"2', r"a\.csv:2: broken csv"),
        ("a.csv", 'prompt,answer\n"two\nlines",2\nx\n', r"a\.csv:4: 1 cells"),
        ("a.xml", "x", r"ends with '\.xml'; allowed: \.jsonl, \.json, \.csv, \.parquet, \.txt"),
        ("a.txt", " \n", r"a\.txt: text is an empty text"),
        ("a.parquet", "x", "not a readable parquet file"),
        ("a.jsonl", '{"messages": []}', "a list of messages is needed"),
        ("a.jsonl", '{"messages": [{"role": "user"}]}', "message 1 is not of the form"),
        ("a.jsonl", '{"messages": [{"role": "human", "content": "a"}]}', "role 'human'; allowed: system, user, assistant, tool"),
        ("a.jsonl", '{"messages": [{"role": "assistant", "content": "a"}]}', "a message of the user is needed before it"),
        ("a.jsonl", '{"prompt": "a", "completion": "b", "response": "c"}', "keep the one that is to be learned"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    assert re.search(message, fault(Files(write(tmp_path, name, text))))


def test_a_text_file_is_one_text_or_pieces_of_it(tmp_path: Path) -> None:
    text = "".join(f"これは{i}。\n" for i in range(100)) + "x" * 25
    path = write(tmp_path, "book.txt", text)
    assert all_rows(Files(path)) == [Example(None, (text,))] and Files(path).num_rows("test") == 0
    task = Files(path, pieces=20, test_share=0.3)
    cut = [str(row.responses[0]) for row in all_rows(task)]
    assert all(len(piece) <= 20 for piece in cut) and task.num_rows("test") > 3
    ends_of_lines = [piece for piece in cut if piece.endswith("\n")]
    assert len(ends_of_lines) == len(cut) - 2 and sorted(map(len, cut))[0] == 5  # the last line is too long and cut where it must be
    assert "".join(sorted(cut, key=text.index)) == text
    longer = all_rows(Files(jsonl(tmp_path, [{"text": "a\nb", "source": "s"}, {"text": "short"}]), pieces=3, test_share=0))
    assert longer == [Example(None, ("a\nb",), {"source": "s"}), Example(None, ("sho",)), Example(None, ("rt",))]
    assert "only raw text (text) can be cut; leave pieces out" in fault(Files(jsonl(tmp_path, [*ROWS]), pieces=3))
    with pytest.raises(ValueError, match="pieces=-1, max_bad_rows=0; allowed: 0 or more"):
        Files(path, pieces=-1)


def test_bad_rows_are_left_out_only_where_it_is_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", "\n".join(['{"prompt": "a"}', "{", '{"prompt": 1}', '{"prompt": "b"}', '{"text": "c"}']))
    rejects = tmp_path / "rows.jsonl.rejects.jsonl"
    assert len(fault(Files(path)).splitlines()) == 3
    assert fault(Files(path, max_bad_rows=2)).splitlines()[-1] == f"{path}: 3 bad rows in all; max_bad_rows allows 2"
    assert not rejects.exists()
    task = Files(path, max_bad_rows=3, test_share=0)
    assert [row.prompt for row in all_rows(task)] == ["a", "b"]
    assert task.shape == "prompts, and columns for rewards; 3 bad rows left out (see rows.jsonl.rejects.jsonl)"
    told = [json.loads(line) for line in rejects.read_text("utf-8").splitlines()]
    assert [row["row"] for row in told] == [None, {"prompt": 1}, {"text": "c"}]
    assert told[1] == {"where": f"{path}:3", "problem": "prompt is a number; a text that is not empty is needed", "row": {"prompt": 1}}
    assert "no rows" in fault(Files(write(tmp_path, "all.jsonl", "{"), max_bad_rows=3))


def test_files_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    jsonl(tmp_path, [*ROWS], "train.jsonl")
    assert "no such file" in fault(Files(tmp_path / "trian.jsonl")) and "did you mean train.jsonl?" in fault(
        Files(tmp_path / "trian.jsonl")
    )
    (tmp_path / "sjis.jsonl").write_bytes('{"prompt": "ねこ"}'.encode("shift_jis"))
    assert "is not UTF-8; save the file as UTF-8" in fault(Files(tmp_path / "sjis.jsonl"))
    with pytest.raises(ValueError, match=r"test_share=1\.5; allowed"):
        Files(tmp_path / "train.jsonl", test_share=1.5)


def test_every_task_names_rewards_that_exist() -> None:
    assert Arithmetic.rewards == ("exact",) and Nursery.rewards == () and Files.rewards == ()
    assert CatLover.rewards == (f"{judge.__module__}:{judge.__name__}",)
    assert Gym.rewards == (f"{gym.score.__module__}:{gym.score.__name__}",)
    assert nursery.Nursery().row("test", 0).responses
