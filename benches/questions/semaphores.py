"""How long does a round trip between two processes take by a pair of semaphores?"""

from __future__ import annotations

from harness.question import main
from questions.pingpong import question

QUESTION = question("semaphores", ("Semaphore",), ())

if __name__ == "__main__":
    main(QUESTION)
