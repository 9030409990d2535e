"""Every `salient` command that the README shows must exist, with every option it shows.

usage: readme_test.py README SALIENT
"""
import re
import subprocess
import sys


def commands(text):
    """(subcommand, options) of each command line in a code fence; continued lines are joined."""
    for fence in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in fence.replace("\\\n", " ").splitlines():
            line = re.sub(r"\s#.*", "", line)
            if match := re.match(r"\s*(?:\S*/)?salient ([a-z]+)(.*)", line):
                yield match.group(1), re.findall(r"(?<=\s)--?[a-zA-Z][a-z-]*", match.group(2))


def main(readme, program):
    with open(readme, encoding="utf-8") as file:
        shown = list(commands(file.read()))
    wrong = [] if shown else ["the README shows no command"]
    for subcommand, options in shown:
        help_run = subprocess.run([program, subcommand, "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", help_run.stdout))
        if help_run.returncode != 0:
            wrong.append(f"salient {subcommand} --help: exit status {help_run.returncode}")
        wrong += [f"salient {subcommand} has no option {option}" for option in options if option not in known]
    print("\n".join(wrong) if wrong else f"{len(shown)} commands hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
