"""What event loops import under this name, if it is there: Celery's reads what its workers say with `read`.

It is the name of the original's extension, which none of its published wheels has.
"""

from billiard._billiard import SemLock, read
from billiard.synchronize import sem_unlink

__all__ = ["SemLock", "flags", "read", "sem_unlink"]

#: What the semaphores can do.
flags = {"HAVE_SEM_OPEN": 1, "HAVE_SEM_TIMEDWAIT": 1}
