"""Writes the documents of the three small tasks beside this file, from examples/demo/evaluation.txt.

    python python/tests/lm_eval_task/make_task.py

choice.jsonl    errands told on, with the wording to choose from; and sentences that "He" or "She" follows
continue.jsonl  errands to be told on word for word, and stories broken off in the proverb at their end
rolling.jsonl   whole stories; the last document is longer than the 512 positions of the demo model
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
STORIES = HERE.parents[2] / "examples" / "demo" / "evaluation.txt"
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
ERRAND = re.compile(r'^(?P<opening>.*? said to \w+: "Tell \w+: (?P<message>[^"]+)" \w+ went to \w+ and said: )"')
PRONOUN = re.compile(r"^.*? a \w+ (?P<kind>man|woman) named \w+, who was an? [\w ]+\. (?=(?P<pronoun>He|She) )")
PRONOUNS = ("He", "She")
PROVERB = re.compile(r"""^(?P<story>.*, "[a-z][\w ]+?)(?P<end>(?: \w+){2})[.]"$""", re.DOTALL)

Document = dict[str, object]


def stories() -> list[str]:
    return [text.strip() for text in STORIES.read_text(encoding="utf-8").split("<|endoftext|>") if text.strip()]


def capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def misheard(message: str, chance: random.Random) -> str:
    """The message with another number in one place."""
    places = [match for match in re.finditer(r"\w+", message) if match.group().lower() in NUMBERS]
    place = chance.choice(places)
    number = chance.choice([number for number in NUMBERS if number != place.group().lower()])
    return message[: place.start()] + number + message[place.end() :]


def wordings(message: str, chance: random.Random) -> list[str]:
    found = [message]
    while len(found) < 4:
        wrong = misheard(message, chance)
        if wrong not in found:
            found.append(wrong)
    chance.shuffle(found)
    return found


def errands(count: int) -> list[tuple[str, str]]:
    matches = filter(None, (ERRAND.match(story) for story in stories()))
    return [(match["opening"], capitalized(match["message"])) for match in matches][:count]


def choice_of_wording(opening: str, message: str, chance: random.Random) -> Document:
    choices = wordings(message, chance)
    quoted = [f'"{choice}"' for choice in choices]
    return {"query": opening.rstrip(), "choices": quoted, "answer": choices.index(message)}


def choices_of_pronoun(count: int) -> list[Document]:
    matches = filter(None, (PRONOUN.match(story) for story in stories()))
    return [
        {"query": match.group().rstrip(), "choices": list(PRONOUNS), "answer": PRONOUNS.index(match["pronoun"])}
        for match in matches
    ][:count]


def retold(opening: str, message: str) -> Document:
    return {"query": f'{opening}"', "answer": message.rstrip(".")}


def proverbs(count: int) -> list[Document]:
    matches = filter(None, (PROVERB.match(story) for story in stories()))
    return [{"query": match["story"], "answer": match["end"]} for match in matches][:count]


def rolling_documents() -> list[Document]:
    texts = stories()
    return [{"text": text} for text in [*texts[:8], "\n".join(texts[8:14])]]


def write(name: str, documents: list[Document]) -> None:
    lines = (json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    (HERE / name).write_text("".join(lines), encoding="utf-8")


def main() -> None:
    chance = random.Random(5)
    told = errands(36)
    write("choice.jsonl", [choice_of_wording(*errand, chance) for errand in told[:16]] + choices_of_pronoun(12))
    write("continue.jsonl", [retold(*errand) for errand in told[16:]] + proverbs(20))
    write("rolling.jsonl", rolling_documents())


if __name__ == "__main__":
    main()
