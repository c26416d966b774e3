"""Uses what the virtual WASI has: the clock, randomness, a file, and standard output."""

import json
import os
import time

from wit_world.exports import scoring
from wit_world.imports.types import Description, Observation


class Plugin:
    def describe(self) -> Description:
        return Description("{{name}}", "0.1.0", "Tells what WASI told.", [], json.dumps({"type": "object"}))

    def configure(self, config: str) -> None:
        pass


class Scoring:
    def score(self, observation: Observation) -> scoring.Assessment:
        print("printed")
        drawn = "drawn" if os.urandom(16) != os.urandom(16) else "the same"
        with open("/assets/greeting.txt") as file:
            return scoring.Assessment_Insufficient(f"{time.time_ns() // 1_000_000} {drawn} {file.read()}")
