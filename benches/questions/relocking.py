"""What do the other kinds of locks cost that nobody else wants?"""

from __future__ import annotations

from harness.question import main
from questions.locking import KINDS, question

QUESTION = question("relocking", KINDS[1:], ())

if __name__ == "__main__":
    main(QUESTION)
