"""The command ``scripts/fuzz``, which feeds hostile texts to every registered parser for some time."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections import Counter

from fuzz.session import Broken, run_case
from fuzz.subjects import subjects


def main() -> int:
    """Run the fuzzer; print the smallest failing inputs and return 1 if a parser breaks a law."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument(
        "--only", default="", help="only parsers whose title contains this text, such as tool/hermes"
    )
    options = parser.parse_args()
    chosen = [subject for subject in subjects() if options.only in subject.title]
    sys.stdout.write(f"{len(chosen)} parsers for {options.seconds:g} s, seed {options.seed}\n")
    began, cases = time.monotonic(), 0
    broken: Counter[str] = Counter()
    while chosen and time.monotonic() < began + options.seconds:
        subject = chosen[cases % len(chosen)]
        try:
            run_case(subject, f"{options.seed}.{cases}")
        except Broken as error:
            broken[subject.title] += 1
            sys.stdout.write(f"{error}\n")
            chosen.remove(subject)
        cases += 1
        if cases % 10_000 == 0:
            sys.stdout.write(f"{cases} cases, {cases / (time.monotonic() - began):.0f} a second\n")
            sys.stdout.flush()
    took = time.monotonic() - began
    sys.stdout.write(
        f"{cases} cases in {took:.0f} s, {cases / took:.0f} a second; {len(broken)} parsers broke a law\n"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
